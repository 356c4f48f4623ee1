"""The in-process LangGraph engine: delivers an outcome by resuming the interrupt that asked.

By the question's key the engine distinguishes four states of a thread. Its interrupt is pending: resume it. It was
resumed before: delivered, and the run is continued where a crash or an error stopped it. The question is not found yet,
because the answer arrived before the checkpoint: deliver later. The thread has moved on without the answer
(superseded): park. Because the state is read first, delivering twice, too early or to a finished thread is harmless.
"""

import asyncio
import inspect
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.types import Interrupt, RetryPolicy, StreamMode

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import Untaken
from awaithumans_adapters.langgraph.delivery.failed_runs import FailedRuns, GraphFailedError
from awaithumans_adapters.langgraph.delivery.history import SEARCH_SECONDS, Searches, SearchUnfinishedError
from awaithumans_adapters.langgraph.delivery.seen_threads import DELETED, REMEMBERED, SeenThreads
from awaithumans_adapters.langgraph.graph_engine.adoption import Adoption, handler_of
from awaithumans_adapters.langgraph.graph_engine.checkpoint_cache import FRESH_SECONDS
from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import GraphThread, RunsOfCaller
from awaithumans_adapters.langgraph.graph_engine.events import MODES, Events, OnEvent
from awaithumans_adapters.langgraph.graph_engine.slots import Turns
from awaithumans_adapters.langgraph.graph_engine.thread import Graph, Thread
from awaithumans_adapters.langgraph.internals import loop_of, without_remote_states
from awaithumans_adapters.langgraph.names import ENGINE, GRAPH, graph_in
from awaithumans_adapters.langgraph.unmodified.human_interrupts import HumanInterrupts
from awaithumans_adapters.langgraph.unmodified.interrupt_question import interrupt_id
from awaithumans_core.engine import TargetBusy, TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import RunRecord, RunsInMemory
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")

RUNNING_TIMEOUT = timedelta(hours=24)
"""Default time to wait for a node that runs concurrently with the question."""

STARTING = 8
"""Number of threads that are read and resumed concurrently while their cached checkpoints are fresh.

If hundreds were started at once, each thread would have to be read again, because the reads and writes of the others
would come in between. A run that takes longer than that gives up its slot and continues concurrently.
"""

NOT_YET_SECONDS = 1.0
"""Seconds to wait before the next attempt. A checkpoint follows the creation of the task within moments."""

SUPERSEDED = (
    "the thread has moved on without this answer: new input, or a fork from an earlier checkpoint, has replaced the "
    "question. If it still matters, it was asked again"
)
"""Reason for parking: the wait has no caller any more, although its question was asked."""

CONTINUED = "the node continued without its answer; does it catch Exception around await_human?"
"""Reason for parking an answer whose node has finished.

The node, or code around it, has swallowed LangGraph's interrupt.
"""

DECIDED = "the quorum has decided without this answer"
"""Reason for parking an answer for which a quorum did not wait."""

UPDATED = (
    "the thread has moved on without this answer: update_state has replaced the step that asked. Nothing runs the "
    "thread until the application does, graph.ainvoke(None, config); the node then asks again, unless the update was "
    "made as this node"
)
"""Why an answer is parked whose question was open when the application called `update_state`."""

GONE = {
    Untaken.CONTINUED: CONTINUED,
    Untaken.DECIDED: DECIDED,
    Untaken.REPLACED: SUPERSEDED,
    Untaken.UPDATED: UPDATED,
}
"""Reason why a question has no caller any more, by its state."""


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


NOT_GIVEN = object()
"""Default of `context`. It differs from None, with which an application states that its graphs have no context."""

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
        graphs: Compiled graphs by name, each with a checkpointer that outlives the process. A thread is found by the
            key of its question. Graphs that share a checkpointer and have nodes of the same name are distinguished by
            the thread's config: `{"configurable": {"thread_id": ..., "graph_id": "<the name here>"}}`.
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
            caller's event loop. Default: the graphs run on the caller's event loop.

    A graph runs with LangGraph's durability "sync", and only after the checkpointer has stored the answer. A run whose
    result could not be stored is started at most once more. Then the wait is parked.

    Raises:
        SettingsError: a graph is not compiled, or has no checkpointer, or has a checkpointer that belongs to another
            event loop than that of `thread`, or has a `context_schema` while no `context` is given; or
            `running_timeout` is not positive.
    """

    name = ENGINE

    def __init__(
        self,
        graphs: Mapping[str, Graph],
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
        for name, graph in graphs.items():
            if not hasattr(graph, "checkpointer"):  # usually an uncompiled StateGraph
                raise SettingsError(f"graph {name!r} is a {type(graph).__name__} and not a compiled graph: compile it")
            if not isinstance(graph.checkpointer, BaseCheckpointSaver):
                raise SettingsError(f"graph {name!r} has no checkpointer, so no thread of it can be resumed")
            if thread is not None:
                _check_loop(name, graph.checkpointer, thread)
            if context is NOT_GIVEN and (schema := getattr(graph, "context_schema", None)) is not None:
                raise SettingsError(
                    f"graph {name!r} has the context_schema {getattr(schema, '__name__', schema)}, and LangGraph does "
                    "not store the context of the run that asked: give GraphEngine(context=...) a context, or a "
                    "function of graph name and thread id (on the command line --graph-context), or context=None for "
                    "none"
                )
        self._running_seconds = (
            running_timeout.total_seconds() if isinstance(running_timeout, timedelta) else float(running_timeout)
        )
        if not self._running_seconds > 0:
            raise SettingsError(f"running_timeout is {running_timeout}: give a positive number of seconds or timedelta")
        self._graphs = dict(graphs)
        self._read_graphs = {name: without_remote_states(graph) for name, graph in graphs.items()}
        self._thread = thread
        self._adoption = Adoption()
        self._config = config if callable(config) else partial(_thread_config, config or {})
        self._context = None if context is NOT_GIVEN else context
        self._on_result = on_result
        self._events = None if on_event is None else Events(on_event, stream_mode)
        self._failed = FailedRuns(retry)
        self._turns = Turns(STARTING, FRESH_SECONDS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._records: dict[str, RunsInMemory] = {}
        """Runs started so far for the answers that `deliver` was called with and that are not delivered yet."""
        self._busy_since: dict[str, float] = {}
        self._cut_short: set[str] = set()
        self._ran: set[str] = set()
        self._searches = Searches()
        self._seen = SeenThreads()
        self._delivered: OrderedDict[str, None] = OrderedDict()
        """Answers that were delivered recently.

        Checkpoint retention may have removed every trace of them from the thread.
        """

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
        delivered = self._deliver_locked(route, outcome, RunsOfCaller(runs, caller), events, redriven=redriven)
        resumed, not_taken = await self.in_thread(delivered, to_its_end=True)
        if self._on_result is not None and resumed is not None:
            self._ran.add(route.digest)
            await self._on_result(resumed)
            self._ran.discard(route.digest)
        if not_taken is not None:
            raise not_taken

    async def in_thread(self, work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
        """Run a coroutine on the event loop of the graphs. Arguments as for `GraphThread.run`."""
        return await (work if self._thread is None else self._thread.run(work, to_its_end=to_its_end))

    async def _deliver_locked(
        self, route: Route, outcome: Outcome, runs: RunRecord, events: Events | None, *, redriven: bool
    ) -> "tuple[Resumed | None, _NotTaken | None]":
        """Deliver one answer at a time per thread.

        Return the argument of `on_result`, and why the answer was not taken.
        """
        lock = self._locks.setdefault(route.target["thread_id"], asyncio.Lock())
        # LangGraph has no lock on a thread: two concurrent resumes would both run the rest.
        not_taken: _NotTaken | None = None
        async with lock, self._turns.turn():
            try:
                thread = await self._deliver(route, outcome, runs, events, redriven=redriven)
            except TargetNotReady:
                raise
            except _NotTaken as gone:
                thread, not_taken = gone.thread, gone
            except GraphFailedError as failed:
                self._busy_since.pop(route.digest, None)
                raise self._failed.verdict(route, failed) from failed
            except BaseException:
                self._busy_since.pop(route.digest, None)
                self._cut_short.add(route.digest)
                raise
            self._busy_since.pop(route.digest, None)
            self._cut_short.discard(route.digest)
            self._failed.forget(route)
            self._seen.was_deleted(route.target["thread_id"], exists=True)
            self._delivered[route.digest] = None
            if len(self._delivered) > REMEMBERED:
                self._delivered.popitem(last=False)
        await self._adopt_touched(route.target["thread_id"])
        if self._on_result is None:
            return None, not_taken
        state = await thread.state()
        where = (thread.name, route.target["thread_id"])
        why = None if not_taken is None else str(not_taken)
        return Resumed(*where, outcome, state.values, state.interrupts, state.next, why), not_taken

    @_in_graph_thread
    async def orphaned(self, route: Route) -> str | None:
        """Return the reason if the thread has asked this question and moved on without an answer of the relay.

        Otherwise return None.

        A question of an earlier release is searched for in the history of its thread, for a few seconds per call.
        """
        try:
            return await self._orphaned(route)
        except SearchUnfinishedError:
            return None

    async def _orphaned(self, route: Route) -> str | None:
        threads = self._threads(route, seconds=SEARCH_SECONDS)
        key = route.idempotency_key
        reason = None
        self._adoption.touched(route.target["thread_id"])
        # Two rounds, because the interrupt may be saved between reading the thread and reading its history.
        for _ in range(2):
            with _looking(threads):
                if await self._was_deleted(threads, route):
                    return DELETED
                if any([await thread.pending(key) or await thread.behind(key) for thread in threads]):
                    return None
                seen = [await thread.history(key) for thread in threads]
                if any(resumed is not None for resumed, _ in seen):
                    return _ANSWERED_ITSELF if interrupt_id(key) else None
                reason = SUPERSEDED if any(asked for _, asked in seen) else None
                if any([await thread.passed() for thread in threads]):
                    reason = SUPERSEDED  # retention has removed the checkpoint that asked
                elif reason is not None and all([await thread.strange(key) for thread in threads]):
                    return None
                else:
                    states = [await thread.untaken(key) for thread in threads]
                    reason = next((GONE[state] for state in states if state in GONE), reason)
                if reason is None:
                    return None
        return reason

    @_in_graph_thread
    async def cancel_thread(self, thread_id: str, *, human_tasks: HumanTasks | None = None) -> list[Outcome]:
        """Cancel the open tasks of a thread that the application abandons, so that people do not work in vain.

        Call it before the thread is deleted, and then delete the thread. Otherwise the relay delivers
        `TaskCancelledError` to its nodes, which then run on. A task that was created for another caller under a shared
        key stays open.

        Args:
            thread_id: The thread.
            human_tasks: Settings and connections. Default: from the environment.

        Returns:
            How each task ended: cancelled, or with an answer that a person had given before.

        Raises:
            ServerUnreachableError, AuthenticationError, RequestRefusedError: the server could not cancel a task. The
                same call may be repeated.
        """
        asker, ended = human_tasks or HumanTasks(), dict[str, Outcome]()
        for name, graph in self._graphs.items():
            thread = Thread(name, graph, self._read_graphs[name], self._config(name, thread_id))
            questions = await thread.open_questions()
            metadata: Mapping[str, Any] = (await thread.state()).metadata or {}
            whose = {GRAPH: str(metadata[GRAPH])} if GRAPH in metadata else {}
            for key, task_id in questions.items():
                if key not in ended:
                    mark = Route(ENGINE, {"thread_id": thread_id, **whose}, key).digest
                    ended[key] = await _cancel(asker, key, task_id, mark, shared=graph_in(key, thread_id) is None)
                    logger.info("task %s of thread %s: %s", ended[key].task_id, thread_id, ended[key].status)
        return list(ended.values())

    @_in_graph_thread
    async def adopt(self) -> int:
        """Create tasks for stored interrupts that have none. The relay calls this on a schedule.

        It considers graphs with `HumanInterrupts` among their callbacks, and the latest checkpoints of their
        checkpointers.

        Returns:
            The number of interrupts that people were asked about.
        """
        handlers = self._handlers("adoption")
        asked = 0
        for thread_id in await self._adoption.candidates([self._saver(name) for name in handlers]):
            asked += await self._adopt_logged(thread_id)
        return asked

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
        handlers = self._handlers(thread_id)
        if not handlers:
            raise SettingsError(
                f"none of the graphs {', '.join(self._graphs)} has HumanInterrupts among its callbacks: give the "
                "engine graph.with_config(callbacks=[HumanInterrupts(...)])"
            )
        asked = 0
        for name, handler in handlers.items():
            thread = Thread(name, self._graphs[name], self._read_graphs[name], self._config(name, thread_id))
            shown, metadata = await thread.unasked()
            target = {"thread_id": thread_id, **({GRAPH: str(metadata[GRAPH])} if metadata.get(GRAPH) else {})}
            if target.get(GRAPH, name) != name and target[GRAPH] in self._graphs:
                continue  # a thread of another graph, whose node has the same name
            asked += sum([await handler.adopt(each, target) for each in shown])
        return asked

    async def _adopt_touched(self, thread_id: str) -> None:
        if self._handlers(thread_id):
            await self._adopt_logged(thread_id)

    async def _adopt_logged(self, thread_id: str) -> int:
        """Adopt a thread. A failure is logged, and the next round tries again."""
        try:
            return await self.adopt_thread(thread_id)
        except Exception as failed:
            self._adoption.failed(thread_id, failed)
            return 0

    def _handlers(self, thread_id: str) -> dict[str, HumanInterrupts]:
        """Return the `HumanInterrupts` of each graph that has one, by graph name."""
        found = {name: handler_of(graph, self._config(name, thread_id)) for name, graph in self._graphs.items()}
        return {name: handler for name, handler in found.items() if handler is not None}

    def _saver(self, name: str) -> BaseCheckpointSaver[Any]:
        saver = self._graphs[name].checkpointer
        if not isinstance(saver, BaseCheckpointSaver):  # checked in __init__
            raise TypeError("the graph has no checkpointer")
        return saver

    @_in_graph_thread
    async def check(self) -> None:
        """Raise if the checkpointer of a graph is unreachable or has no tables yet."""
        for name, graph in self._graphs.items():
            await Thread(name, graph, self._read_graphs[name], self._config(name, "doctor")).state()

    @_in_graph_thread
    async def check_thread(self, route: Route) -> str:
        """Read a thread as a delivery would, without resuming it. Return a description of its state for an operator.

        Raises:
            TargetNotReady: none of the graphs has a checkpoint of the thread.
        """
        found = [(thread.name, await thread.state()) for thread in self._threads(route)]
        shown = [
            f"graph {name} has thread {route.target['thread_id']!r}, which "
            + (f"comes to {', '.join(state.next)} next" if state.next else "has ended")
            + f" and shows {len(state.interrupts)} interrupt{'' if len(state.interrupts) == 1 else 's'}"
            for name, state in found
            if state.created_at is not None
        ]
        if not shown:
            raise TargetNotReady(
                f"no checkpoint of thread {route.target['thread_id']!r} in {', '.join(self._graphs)}; do the relay and "
                "the asking process share the checkpointer?"
            )
        return "; ".join(shown)

    def _threads(
        self,
        route: Route,
        runs: RunRecord | None = None,
        events: Events | None = None,
        *,
        seconds: float | None = None,
    ) -> list[Thread]:
        """Return the thread as seen through each graph to which it may belong.

        Raises:
            TargetNotReady: the route names a graph that this relay does not have.
        """
        graphs, graph_id = self._graphs, route.target.get(GRAPH)
        if graph_id is not None and graph_id not in graphs:
            raise TargetNotReady(f"this relay has no graph {graph_id!r}; it has: {', '.join(graphs)}")
        names = graphs if graph_id is None else [graph_id]
        return [
            Thread(
                name,
                graphs[name],
                self._read_graphs[name],
                self._resume_config(name, route),
                runs,
                events,
                asked_in=route.asked_at,
                so_far=self._searches.of(name, route.digest),
                seconds=seconds,
                context=partial(self._context_of, name, route.target["thread_id"]),
            )
            for name in names
        ]

    async def _context_of(self, name: str, thread_id: str) -> Any:
        made = self._context(name, thread_id) if callable(self._context) else self._context
        return await made if inspect.isawaitable(made) else made

    def _resume_config(self, name: str, route: Route) -> RunnableConfig:
        config = self._config(name, route.target["thread_id"])
        # The next question must carry the same graph id.
        named = {GRAPH: route.target[GRAPH]} if GRAPH in route.target else {}
        return {**config, "configurable": {**config.get("configurable", {}), **named}}

    async def _deliver(
        self, route: Route, outcome: Outcome, runs: RunRecord, events: Events | None, *, redriven: bool
    ) -> Thread:
        """Bring the thread to the point where it has taken the answer and run, and return it."""
        threads = self._threads(route, runs, events)
        if resumed := await self._resume(threads, route, outcome):
            return resumed
        for thread in threads:
            taken, asked = await thread.history(route.idempotency_key)
            if taken is not None:
                return await self._go_on(threads, thread, taken, route, redriven=redriven)
            if asked:
                # The interrupt may have been saved between the two reads.
                if resumed := await self._resume(threads, route, outcome):
                    return resumed
                if await thread.behind(route.idempotency_key):
                    if await thread.shows_old_question(route.idempotency_key):
                        await thread.go_on(route.idempotency_key, settled=False)
                        if resumed := await self._resume(threads, route, outcome):
                            return resumed
                    raise behind()
                if all([await other.strange(route.idempotency_key) for other in threads]):
                    raise TargetNotReady(
                        f"the question waits at a node that {', '.join(self._graphs)} of this relay does not have; is "
                        "it of another release?",
                        retry_after=NOT_YET_SECONDS,
                    )
                raise _NotTaken(GONE.get(await thread.untaken(route.idempotency_key), SUPERSEDED), thread=thread)
        for thread in threads:
            state = await thread.untaken(route.idempotency_key)
            if state in GONE:
                raise _NotTaken(GONE[state], thread=thread)
            if state is Untaken.OPEN and (await thread.state()).interrupts:
                raise behind()
        for thread in threads:
            if (runs.started or route.digest in self._delivered) and await thread.exists():
                # Retention has removed the checkpoint that took the answer.
                if failed := await thread.failures():
                    raise GraphFailedError(failed)
                return thread
            if await thread.passed():
                raise _NotTaken(SUPERSEDED, thread=thread)
        if await self._was_deleted(threads, route):
            raise TargetGone(DELETED)
        raise TargetNotReady(
            f"no thread {route.target['thread_id']!r} with this question in {', '.join(self._graphs)} yet; "
            "do the relay and the calling process share the checkpointer? If they do, the process may have stopped "
            "before LangGraph stored the interrupt: then run the thread on with graph.invoke(None, config)",
            retry_after=NOT_YET_SECONDS,
        )

    async def _resume(self, threads: list[Thread], route: Route, outcome: Outcome) -> Thread | None:
        """Resume the thread if it shows the question, and return it. Return None if it does not."""
        with _looking(threads):
            return await self._resume_shown(threads, route, outcome)

    async def _resume_shown(self, threads: list[Thread], route: Route, outcome: Outcome) -> Thread | None:
        waiting = {thread: await thread.pending(route.idempotency_key) for thread in threads}
        showing = [thread for thread in threads if waiting[thread]]
        if not showing:
            return None
        thread = _only(showing)
        if (busy := await thread.running()) and self._may_still_run(route):
            raise TargetBusy(
                f"{', '.join(busy)} still runs beside the question; resuming now would run it twice",
                retry_after=NOT_YET_SECONDS,
            )
        if failed := await thread.failed_with_answer():
            raise TargetNotReady(
                f"beside the question, {failed} after it had its own answer; resuming now would run it again",
                retry_after=NOT_YET_SECONDS,
            )
        if unstored := await thread.left_over(route.idempotency_key):
            raise TargetNotReady(
                f"beside the question, {', '.join(unstored)} has its own answer and its result is not stored; resuming "
                "now would run it again",
                retry_after=NOT_YET_SECONDS,
            )
        await thread.resume(route.idempotency_key, waiting[thread], outcome)
        return thread

    async def _go_on(
        self, threads: list[Thread], taker: Thread, taken: CheckpointTuple, route: Route, *, redriven: bool
    ) -> Thread:
        """Finish the run that took the answer, if a crash cut it off or its failure may be retried."""
        if route.digest in self._ran:  # this run reached its end; what runs now belongs to another caller
            return taker
        stopped = [thread for thread in threads if await thread.stopped_since(taken)]
        if not stopped:
            # If a handler failed, the next question may not have been asked. Asking again is harmless.
            if route.digest in self._cut_short and (await taker.state()).interrupts:
                await taker.go_on(route.idempotency_key, settled=not await taker.between_questions())
            return taker
        thread = _only(stopped)
        failed = await thread.failures()
        if failed and not (redriven or self._failed.may_run_again):
            raise GraphFailedError(failed)
        await thread.go_on(route.idempotency_key, settled=bool(failed) and not redriven)
        return thread

    async def _was_deleted(self, threads: list[Thread], route: Route) -> bool:
        exists = any([await thread.exists() for thread in threads])
        return self._seen.was_deleted(route.target["thread_id"], exists=exists)

    def _may_still_run(self, route: Route) -> bool:
        """Whether a task without a result beside the question may still be running, rather than having been cut off."""
        since = self._busy_since.setdefault(route.digest, time.monotonic())
        return time.monotonic() - since < self._running_seconds


@dataclass(eq=False, repr=False, match_args=False, kw_only=True)
class _NotTaken(TargetGone):
    """The thread has moved on without the answer."""

    thread: Any = None
    """The `Thread` that has moved on. Only a test constructs the error without one."""


@contextmanager
def _looking(threads: list[Thread]) -> Generator[None]:
    """Cache the checkpoints of these threads within the block, so that none is read twice."""
    with ExitStack() as looks:
        for thread in threads:
            looks.enter_context(thread.looking())
        yield


def _check_loop(name: str, saver: BaseCheckpointSaver[Any], thread: GraphThread) -> None:
    """Refuse a checkpointer that belongs to another event loop. Checkpointers with async methods belong to one.

    Raises:
        SettingsError: the checkpointer belongs to another event loop than that of `thread`.
    """
    loop = loop_of(saver)
    if loop is not None and loop is not thread.loop:
        raise SettingsError(
            f"the {type(saver).__name__} of graph {name!r} belongs to another event loop than that of the thread: open "
            "it, and compile the graph, in an async context manager, and enter that with thread.enter_async_context"
        )


async def _cancel(asker: HumanTasks, key: str, task_id: str | None, mark: str, *, shared: bool) -> Outcome:
    if task_id is None:
        return await asker.withdraw(key, asked_by=mark)
    return await asker.close(task_id, asked_by=(lambda _: mark) if shared else None)


def behind() -> TargetBusy:
    """Return the error for a question that is not shown yet.

    A node that asks several people at once shows one question at a time.
    """
    return TargetBusy(
        "the node waits for another answer first; then the thread shows this question", retry_after=NOT_YET_SECONDS
    )


_ANSWERED_ITSELF = "the application has resumed this interrupt itself"
"""Reason for an orphaned wait of a foreign interrupt.

A wait that is open was not delivered by the relay. Questions of this package's own nodes are answered only by a
delivery, so the reason does not apply to them.
"""


def _thread_config(fixed: RunnableConfig, _: str, thread_id: str) -> RunnableConfig:
    return {**fixed, "configurable": {**fixed.get("configurable", {}), "thread_id": thread_id}}


def _only(threads: list[Thread]) -> Thread:
    if len(threads) > 1:
        names = ", ".join(thread.name for thread in threads)
        raise TargetGone(
            f"the graphs {names} share a checkpointer and a node name, so nobody can tell whose thread this is: run "
            f'them with {{"configurable": {{"thread_id": ..., "{GRAPH}": "{threads[0].name}"}}}}, or give them '
            "different node names, and redrive"
        )
    return threads[0]
