"""The in-process LangGraph engine: delivers an outcome by resuming the interrupt that asked.

The thread is read first, and its state is classified by the question's key (see `delivery.classification`). So
delivering twice, too early or to a finished thread is harmless. This module is the engine as the application and the
relay see it; `deliveries` does the work.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.types import Interrupt, RetryPolicy, StreamMode

from awaithumans_adapters.langgraph.default_human_tasks import replacement
from awaithumans_adapters.langgraph.graph_engine.adoption import Adoption
from awaithumans_adapters.langgraph.graph_engine.cancellation import cancel_questions
from awaithumans_adapters.langgraph.graph_engine.deliveries import Deliveries
from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import GraphThread, RunsOfCaller
from awaithumans_adapters.langgraph.graph_engine.events import MODES, Events, OnEvent
from awaithumans_adapters.langgraph.graph_engine.graphs import NOT_GIVEN, Graphs
from awaithumans_adapters.langgraph.graph_engine.opening import GraphSource
from awaithumans_adapters.langgraph.names import ENGINE
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import RunRecord, RunsInMemory

RUNNING_TIMEOUT = timedelta(hours=24)
"""Default time to wait for a node that runs concurrently with the question."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """State of a thread after an answer, as passed to `on_result`."""

    graph: str
    """Name of the graph in the engine's `graphs`."""
    thread_id: str
    """Id of the thread."""
    outcome: Outcome
    """The answer that the thread took, or did not take: see `not_taken`."""
    values: Any
    """The thread's state: `graph.get_state(config).values`."""
    interrupts: tuple[Interrupt[Any], ...]
    """The questions at which the thread waits now."""
    next: tuple[str, ...] = ()
    """The nodes that run next: those that wait at an interrupt or a static breakpoint.

    Empty if the thread ran to its end.
    """
    not_taken: str | None = None
    """Why the thread did not take the answer and never will. None: it took the answer and continued.

    One such reason is that `update_state` was called while the question was open.
    """

    @property
    def ended(self) -> bool:
        """Whether the thread ran to its end, and does not wait at an interrupt, a static breakpoint or to be run."""
        return not self.next and not self.interrupts


OnResult = Callable[[Resumed], Awaitable[None]]

T = TypeVar("T")
P = ParamSpec("P")


def _in_graph_thread(
    method: "Callable[Concatenate[GraphEngine, P], Coroutine[Any, Any, T]]",
) -> "Callable[Concatenate[GraphEngine, P], Coroutine[Any, Any, T]]":
    """Decorate a method so that it runs on the event loop of the engine's graphs."""

    @wraps(method)
    async def on_its_loop(engine: "GraphEngine", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await engine.in_thread(method(engine, *args, **kwargs))

    return on_its_loop


class GraphEngine:
    """Resumes threads of graphs that live in the relay's process.

    Args:
        graphs: Graphs by name, each with a checkpointer that outlives the process. A graph is given compiled, or as a
            function without arguments that returns it: plain, async, or an async context manager that holds its
            checkpointer open. The relay calls the function when it starts, and closes the graph when it stops. A thread
            is found by the key of its question. Graphs that share a checkpointer and have nodes of the same name are
            distinguished by the thread's config:
            `{"configurable": {"thread_id": ..., "graph_id": "<the name here>"}}`.
        config: The config with which threads are resumed: keys of the application in `configurable`, callbacks, tags,
            recursion limit. Or a function that builds it from graph name and thread id. `thread_id` is added.
        context: The runtime context with which threads are resumed, for graphs with a `context_schema`. LangGraph does
            not store the context of the run that asked. Or a function, sync or async, that returns it for graph name
            and thread id. None: these graphs run without a context. Default: no graph has a `context_schema`.
        on_result: Called with the state of the thread after every answer that it took or will never take
            (`Resumed.not_taken`), for the application that started the run. Called at least once: again if the relay
            died before it could record the delivery, and if the hook raised.
        on_event: Called with each part of the stream while a thread runs after an answer, for the application's user
            interface. The graph waits for it, so hand the event over and return. Exceptions it raises are logged. After
            a crash the thread continues from its last checkpoint, so some events are missing or come twice.
        stream_mode: LangGraph's stream modes of which `on_event` receives the parts. Default: `updates`, `messages`,
            `custom`.
        retry: After which failures the failed node is run again although it had the answer, how often and at which
            intervals. Default: never. Such a node may have acted, so its failure is recorded with the wait, which is
            parked. (A node's own retry policy is applied by LangGraph, before this one.)
        running_timeout: How long to wait for a node that runs concurrently with the question in the application's
            process (seconds or timedelta, by this process's clock). Until then the answer is kept. After that the node
            is assumed to have died with its process, and the thread is resumed, which runs the node again. The time
            must be longer than any node takes that runs concurrently with a question. Default: 24 hours.
        thread: The thread in which the graphs run and their checkpointers are used, so that a node that blocks, or
            computes for long, does not block the relay's callbacks. `on_result` and `on_event` are still called on the
            caller's event loop. Graphs given as functions are opened and closed in it. Default: the graphs run on the
            caller's event loop.

    Example:
        @asynccontextmanager
        async def refunds():
            async with AsyncSqliteSaver.from_conn_string("checkpoints.db") as saver:
                yield builder.compile(checkpointer=saver)

        engine = GraphEngine({"refunds": refunds})
        app.include_router(create_router([engine]))  # while the app runs: engine.graph("refunds")

    A graph runs with LangGraph's durability "sync", and only after the checkpointer has stored the answer. A run whose
    result could not be stored is started at most once more. Then the wait is parked.

    Raises:
        SettingsError: a graph is not compiled, or has no checkpointer, or has a checkpointer that belongs to another
            event loop than the one that runs the graph, or has a `context_schema` while no `context` is given; or
            `running_timeout` is not positive. What can be known only when the graphs are opened is raised by `opened`,
            so that the relay does not start.
    """

    name = ENGINE

    def __init__(
        self,
        graphs: Mapping[str, GraphSource],
        *,
        config: RunnableConfig | Callable[[str, str], RunnableConfig] | None = None,
        context: Any = NOT_GIVEN,
        on_result: OnResult | None = None,
        on_event: OnEvent | None = None,
        stream_mode: Sequence[StreamMode] = MODES,
        retry: RetryPolicy | None = None,
        running_timeout: float | timedelta = RUNNING_TIMEOUT,
        thread: GraphThread | None = None,
    ) -> None:
        self._graphs = Graphs(graphs, config, context, thread)
        running_seconds = (
            running_timeout.total_seconds() if isinstance(running_timeout, timedelta) else float(running_timeout)
        )
        if not running_seconds > 0:
            raise SettingsError(f"running_timeout is {running_timeout}: give a positive number of seconds or timedelta")
        self._thread = thread
        self._deliveries = Deliveries(self._graphs, retry, running_seconds)
        self._adoption = Adoption(self._graphs)
        self._on_result = on_result
        self._events = None if on_event is None else Events(on_event, stream_mode)
        self._is_open = False
        self._opening = asyncio.Lock()
        self._records: dict[str, RunsInMemory] = {}
        """Runs started so far for the answers that `deliver` was called with and that are not delivered yet."""
        self._to_report: set[str] = set()
        """Digests of the answers whose run has ended, and of which `on_result` has not been informed yet."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open the graphs that are given as functions, and close them at the end of the block. The relay calls this.

        If the graphs are open already, they stay open until the block that opened them ends.

        Raises:
            SettingsError: a function fails, or returns a graph that cannot be resumed, or a checkpointer belongs to
                another event loop.
        """
        async with AsyncExitStack() as stack:
            async with self._opening:  # a second block waits until the first one has opened them
                if not self._is_open:
                    await self._open(stack)
            yield

    async def _open(self, stack: AsyncExitStack) -> None:
        """Open the graphs until the end of the stack."""
        opening = self._graphs.opened()
        if self._thread is not None:
            if not self._thread.started:  # then nothing else closes it
                stack.push_async_callback(self._thread.aclose)
            opening = self._thread.within(opening)
        await stack.enter_async_context(opening)
        self._is_open = True
        stack.callback(setattr, self, "_is_open", False)

    def graph(self, name: str) -> Any:  # LangGraph's own class has type parameters that would be unknown here
        """Return an open graph, for the application that starts its threads.

        With `thread`, run it on the thread's event loop: `await engine.in_thread(graph.ainvoke(...))`.

        Raises:
            SettingsError: the engine has no such graph, or it is not open, because the relay does not run.
        """
        return self._graphs.graph(name)

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and run it to its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer, or it is ambiguous to which graph the thread
                belongs, or a node failed after it had the answer and `retry` does not run it again.
            TargetNotReady: the thread does not show the question yet, or is running, or has failed and will be retried.
            Exception: the thread has not taken the answer, or was cut off after it had. The next delivery continues
                from there.
        """
        runs = self._records.setdefault(route.digest, RunsInMemory())
        await self.deliver_recorded(route, outcome, runs, redriven=False)
        self._records.pop(route.digest, None)

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        """Deliver, and continue a thread that failed after it had the answer, because its owner has repaired the cause.

        Errors are those of `deliver`.
        """
        await self.deliver_recorded(route, outcome, RunsInMemory(), redriven=True)

    async def deliver_recorded(self, route: Route, outcome: Outcome, runs: RunRecord, *, redriven: bool) -> None:
        """Deliver or redrive an answer, and record each run of the graph before it starts. The relay calls this method.

        Raises:
            TargetGone: as in `deliver`, or the graph was run twice from the same position and its result could not be
                stored.
            TargetNotReady, Exception: as in `deliver`.
        """
        caller = asyncio.get_running_loop()
        events = None if self._events is None else self._events.on(caller)
        recorded = RunsOfCaller(runs, caller)
        delivery = self._resume_and_report(route, outcome, recorded, events, redriven=redriven)
        resumed, not_taken = await self.in_thread(delivery, to_its_end=True)
        if self._on_result is not None and resumed is not None:
            self._to_report.add(route.digest)
            await self._on_result(resumed)
            self._to_report.discard(route.digest)
        if not_taken is not None:
            raise TargetGone(not_taken)

    async def in_thread(self, work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
        """Run a coroutine on the event loop of the graphs. Arguments as for `GraphThread.run`."""
        return await (work if self._thread is None else self._thread.run(work, to_its_end=to_its_end))

    async def _resume_and_report(
        self, route: Route, outcome: Outcome, runs: RunRecord, events: Events | None, *, redriven: bool
    ) -> tuple[Resumed | None, str | None]:
        """Deliver one answer. Return the argument for `on_result`, if one is set, and why the answer was not taken."""
        run_ended = route.digest in self._to_report
        ended = await self._deliveries.deliver(route, outcome, runs, events, redriven=redriven, run_ended=run_ended)
        await self._adoption.adopt_delivered(route.target["thread_id"])
        if self._on_result is None:
            return None, ended.not_taken
        state = await ended.thread.state()
        where = (ended.thread.name, ended.thread.id)
        resumed = Resumed(*where, outcome, state.values, state.interrupts, state.next, ended.not_taken)
        return resumed, ended.not_taken

    @_in_graph_thread
    async def orphaned(self, route: Route) -> str | None:
        """Return the reason if the thread has asked this question and moved on without an answer of the relay.

        Otherwise return None.

        A question of an earlier release is searched for in the history of its thread, for a few seconds per call.
        """
        self._adoption.touched(route.target["thread_id"])
        return await self._deliveries.orphaned(route)

    @_in_graph_thread
    async def cancel_thread(self, thread_id: str, *, human_tasks: HumanTasks | None = None) -> list[Outcome]:
        """Cancel the open tasks of a thread that the application abandons, so that people do not work in vain.

        Call it before the thread is deleted, and then delete the thread. Otherwise the relay delivers
        `TaskCancelledError` to its nodes, which then continue. A task that was created for another caller under a
        shared key stays open.

        Args:
            thread_id: The thread.
            human_tasks: Settings and connections. Default: from the environment.

        Returns:
            How each task ended: cancelled, or with an answer that a person had given before.

        Raises:
            ServerUnreachableError, AuthenticationError, RequestRefusedError: the server could not cancel a task. The
                same call may be repeated.
        """
        return await cancel_questions(self._graphs, thread_id, human_tasks or replacement() or HumanTasks())

    @_in_graph_thread
    async def adopt(self) -> int:
        """Create tasks for stored interrupts that have none. The relay calls this on a schedule.

        It considers graphs with `HumanInterrupts` among their callbacks, and the latest checkpoints of their
        checkpointers.

        Returns:
            The number of interrupts that people were asked about.
        """
        return await self._adoption.adopt()

    @_in_graph_thread
    async def adopt_thread(self, thread_id: str) -> int:
        """Create tasks for the interrupts at which this thread waits, unless they have one already.

        For an application that knows that it has left a stream at an interrupt and does not want to wait for the
        relay's schedule.

        Returns:
            The number of interrupts that people were asked about.

        Raises:
            SettingsError: no graph has `HumanInterrupts` among its callbacks.
            AwaitHumansError: a question was refused, or server or relay are unreachable.
        """
        return await self._adoption.adopt_thread(thread_id)

    @_in_graph_thread
    async def check(self) -> None:
        """Raise if the checkpointer of a graph is unreachable or has no tables yet."""
        for name in self._graphs:
            await self._graphs.thread(name, "doctor").state()

    @_in_graph_thread
    async def check_thread(self, route: Route) -> str:
        """Read a thread as a delivery would, without resuming it. Return a description of its state for an operator.

        Raises:
            TargetNotReady: none of the graphs has a checkpoint of the thread.
        """
        found = [(thread.name, await thread.state()) for thread in self._graphs.threads_of(route)]
        shown = [
            f"graph {name} has thread {route.target['thread_id']!r}, "
            + (f"whose next nodes are {', '.join(state.next)}" if state.next else "which has ended")
            + f" and shows {len(state.interrupts)} interrupt{'' if len(state.interrupts) == 1 else 's'}"
            for name, state in found
            if state.created_at is not None
        ]
        if not shown:
            raise TargetNotReady(
                f"no checkpoint of thread {route.target['thread_id']!r} in {self._graphs}; do the relay and the "
                "asking process share the checkpointer?"
            )
        return "; ".join(shown)

    async def serves(self) -> list[str]:
        """Return the names of the graphs."""
        return list(self._graphs)
