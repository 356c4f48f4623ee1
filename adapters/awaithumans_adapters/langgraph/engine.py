"""The relay's side: an outcome resumes the interrupt that asked.

The question's key tells four states of a thread apart: its interrupt is pending (resume it), it was resumed before
(delivered; go on where a crash or an error stopped), it is nowhere yet (the answer beat the checkpoint; later), or the
thread has moved on without it (superseded; park). Looking first is what makes delivering twice, too early or to a
finished thread harmless.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.types import Interrupt, RetryPolicy, StreamMode

from awaithumans_adapters.langgraph.adoption import Adoption, handler_of
from awaithumans_adapters.langgraph.events import MODES, Events, OnEvent
from awaithumans_adapters.langgraph.failures import FailedRuns, GraphFailedError
from awaithumans_adapters.langgraph.foreign import interrupt_id
from awaithumans_adapters.langgraph.interrupts import HumanInterrupts
from awaithumans_adapters.langgraph.look import FRESH_SECONDS
from awaithumans_adapters.langgraph.names import ENGINE, GRAPH
from awaithumans_adapters.langgraph.thread import Graph, Thread
from awaithumans_adapters.langgraph.turns import Turns
from awaithumans_core.engine import TargetBusy, TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import RunRecord, RunsInMemory

RUNNING_TIMEOUT = timedelta(hours=24)
"""How long a node that runs beside the question is waited for, by default."""

STARTING = 8
"""Threads looked at and resumed at once, while what the look has seen is fresh.

Of hundreds at once each would be read again, since the others' reads and writes came in between. A run that takes long
takes it beside all others.
"""

NOT_YET_SECONDS = 1.0
"""A checkpoint follows the creation of the task within moments."""

SUPERSEDED = (
    "the thread has moved on without this answer: new input, or a fork from an earlier checkpoint, has replaced the "
    "question. If it still matters, it was asked again"
)
"""Why nobody waits any more for the answer to a question that was asked."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a thread stands after it took an answer and ran on; what `on_result` is given."""

    graph: str
    """Name of the graph, as the engine was given it."""
    thread_id: str
    """The thread."""
    outcome: Outcome
    """The answer it took."""
    values: Any
    """The thread's state, as `graph.get_state(config).values` has it."""
    interrupts: tuple[Interrupt[Any], ...]
    """The questions it waits at now."""
    next: tuple[str, ...] = ()
    """The nodes that run next: those that wait at an interrupt or a static breakpoint. Empty: it ran to its end."""

    @property
    def ended(self) -> bool:
        """Whether the thread ran to its end, and does not wait at an interrupt or a static breakpoint."""
        return not self.next and not self.interrupts


OnResult = Callable[[Resumed], Awaitable[None]]


class GraphEngine:
    """Resumes threads of graphs that live in the relay's process.

    Args:
        graphs: Compiled graphs by name, each with a checkpointer that outlives the process. A thread is found by its
            question's key. Graphs that share a checkpointer and have nodes of the same name are told apart by the
            thread's config: `{"configurable": {"thread_id": ..., "graph_id": "<the name here>"}}`.
        config: Builds the config a thread is resumed with, from graph name and thread id, for graphs that read more
            than `thread_id` from it.
        on_result: Told where the thread stands, after every answer it took, for the app that started the run. At least
            once: again when the relay died before it could write down that the answer was delivered, and when the
            hook raised.
        on_event: Called with each part of the stream while a thread runs on after an answer, for the application's user
            interface. The graph waits for it, so hand the event over and return. What it raises is logged. After a
            crash the thread goes on from its last checkpoint: some events are missing or come twice.
        stream_mode: What `on_event` is called with, in LangGraph's words. Default: `updates`, `messages`, `custom`.
        retry: Which failures after the answer are worth running the failed node again, how often and at which
            intervals. Default: none. Such a node may have acted, so its failure is kept with the wait, which is parked.
            (A node's own retry policy is LangGraph's business and comes first.)
        running_timeout: How long a node that runs beside the question, in the application's process, is waited for
            (seconds or timedelta, by this process's clock). Until then the answer is kept. After that the node counts
            as cut off, with its process, and the thread is resumed, which runs the node again. It must be longer than
            any node takes that runs beside a question. Default: 24 hours.

    A graph runs with LangGraph's durability "sync", and only after the checkpointer has stored the answer. A run whose
    result could not be stored is started at most once more; then the wait is parked.

    Raises:
        SettingsError: a graph is not compiled, or has no checkpointer; `running_timeout` is not positive.
    """

    name = ENGINE

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        *,
        config: Callable[[str, str], RunnableConfig] | None = None,
        on_result: OnResult | None = None,
        on_event: OnEvent | None = None,
        stream_mode: Sequence[StreamMode] = MODES,
        retry: RetryPolicy | None = None,
        running_timeout: float | timedelta = RUNNING_TIMEOUT,
    ) -> None:
        for name, graph in graphs.items():
            if not hasattr(graph, "checkpointer"):  # a StateGraph, most of the time
                raise SettingsError(f"graph {name!r} is a {type(graph).__name__} and not a compiled graph: compile it")
            if not isinstance(graph.checkpointer, BaseCheckpointSaver):
                raise SettingsError(f"graph {name!r} has no checkpointer, so no thread of it can be resumed")
        self._running_seconds = (
            running_timeout.total_seconds() if isinstance(running_timeout, timedelta) else float(running_timeout)
        )
        if not self._running_seconds > 0:
            raise SettingsError(f"running_timeout is {running_timeout}: give a positive number of seconds or timedelta")
        self._graphs = dict(graphs)
        self._adoption = Adoption()
        self._config = config or _thread_config
        self._on_result = on_result
        self._events = None if on_event is None else Events(on_event, stream_mode)
        self._failed = FailedRuns(retry)
        self._turns = Turns(STARTING, FRESH_SECONDS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._records: dict[str, RunsInMemory] = {}
        """Of answers that `deliver` was called with and that are not delivered: the runs started so far."""
        self._busy_since: dict[str, float] = {}
        self._cut_short: set[str] = set()
        self._ran: set[str] = set()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and run it to its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer, nobody can tell whose thread it is, or a node
                failed after it had the answer and `retry` does not run it again.
            TargetNotReady: the thread does not show the question yet, runs just now, or has failed and is tried again.
            Exception: the thread has not taken the answer, or was cut off after it had; the next delivery goes on from
                there.
        """
        runs = self._records.setdefault(route.digest, RunsInMemory())
        await self.deliver_recorded(route, outcome, runs, redriven=False)
        self._records.pop(route.digest, None)

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        """Deliver, and run a thread on that failed after it had the answer: its owner has repaired the cause."""
        await self.deliver_recorded(route, outcome, RunsInMemory(), redriven=True)

    async def deliver_recorded(self, route: Route, outcome: Outcome, runs: RunRecord, *, redriven: bool) -> None:
        """Deliver, or redrive, and record each run of the graph before it starts; what the relay calls.

        Raises as `deliver` does, and TargetGone if the graph was run twice from the same position and its result could
        not be stored.
        """
        lock = self._locks.setdefault(route.target["thread_id"], asyncio.Lock())
        # The library has no lock on a thread: two resumes at once would both run the rest.
        async with lock, self._turns.turn():
            try:
                thread = await self._deliver(route, outcome, runs, redriven=redriven)
            except TargetNotReady:
                raise
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
        await self._adopt_touched(route.target["thread_id"])
        if self._on_result is not None:
            state = await thread.state()
            self._ran.add(route.digest)
            await self._on_result(
                Resumed(thread.name, route.target["thread_id"], outcome, state.values, state.interrupts, state.next)
            )
            self._ran.discard(route.digest)

    async def orphaned(self, route: Route) -> str | None:
        """Say so when the thread has asked this question and moved on without an answer of ours."""
        threads = self._threads(route)
        key = route.idempotency_key
        self._adoption.touched(route.target["thread_id"])
        # Twice: the interrupt may be saved between the look at the thread and the one at its history.
        for _ in range(2):
            if any([await thread.pending(key) or await thread.behind(key) for thread in threads]):
                return None
            seen = [await thread.history(key) for thread in threads]
            if any(resumed is not None for resumed, _ in seen):
                return _ANSWERED_ITSELF if interrupt_id(key) else None
            if not any(asked for _, asked in seen) or all([await thread.strange(key) for thread in threads]):
                return None
        return SUPERSEDED

    async def adopt(self) -> int:
        """Ask people about stored interrupts without a task; the relay calls it on a schedule.

        Of graphs with `HumanInterrupts` among their callbacks, and the latest checkpoints of their checkpointers.

        Returns:
            How many interrupts were asked about.
        """
        handlers = self._handlers("adoption")
        asked = 0
        for thread_id in await self._adoption.candidates([self._saver(name) for name in handlers]):
            asked += await self._adopt_logged(thread_id)
        return asked

    async def adopt_thread(self, thread_id: str) -> int:
        """Ask people about the interrupts at which this thread waits, unless they were asked before.

        For an application that knows that it has left a stream at an interrupt and does not want to wait for the
        relay's schedule.

        Returns:
            How many interrupts were asked about.

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
            shown, metadata = await Thread(name, self._graphs[name], self._config(name, thread_id)).unasked()
            target = {"thread_id": thread_id, **({GRAPH: str(metadata[GRAPH])} if metadata.get(GRAPH) else {})}
            if target.get(GRAPH, name) != name and target[GRAPH] in self._graphs:
                continue  # another graph's thread, whose node has the same name
            asked += sum([await handler.adopt(each, target) for each in shown])
        return asked

    async def _adopt_touched(self, thread_id: str) -> None:
        if self._handlers(thread_id):
            await self._adopt_logged(thread_id)

    async def _adopt_logged(self, thread_id: str) -> int:
        """Adopt a thread; what fails is logged and tried in the next round."""
        try:
            return await self.adopt_thread(thread_id)
        except Exception as failed:
            self._adoption.failed(thread_id, failed)
            return 0

    def _handlers(self, thread_id: str) -> dict[str, HumanInterrupts]:
        """The graphs whose interrupts people are asked about."""
        found = {name: handler_of(graph, self._config(name, thread_id)) for name, graph in self._graphs.items()}
        return {name: handler for name, handler in found.items() if handler is not None}

    def _saver(self, name: str) -> BaseCheckpointSaver[Any]:
        saver = self._graphs[name].checkpointer
        if not isinstance(saver, BaseCheckpointSaver):  # checked when the engine was built
            raise TypeError("the graph has no checkpointer")
        return saver

    async def check(self) -> None:
        """Raise when a graph's checkpointer is away, or has no tables yet."""
        for name, graph in self._graphs.items():
            await Thread(name, graph, self._config(name, "doctor")).state()

    async def check_thread(self, route: Route) -> str:
        """Read a thread as a delivery would, and resume nothing. Returns what was found, for an operator.

        Raises:
            TargetNotReady: none of the graphs has a checkpoint of it.
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

    def _threads(self, route: Route, runs: RunRecord | None = None) -> list[Thread]:
        """The thread as each graph shows it whose it may be."""
        graphs, graph_id = self._graphs, route.target.get(GRAPH)
        if graph_id is not None and graph_id not in graphs:
            raise TargetNotReady(f"this relay has no graph {graph_id!r}; it has: {', '.join(graphs)}")
        names = graphs if graph_id is None else [graph_id]
        return [Thread(name, graphs[name], self._resume_config(name, route), runs, self._events) for name in names]

    def _resume_config(self, name: str, route: Route) -> RunnableConfig:
        config = self._config(name, route.target["thread_id"])
        # What it asks next must find the same graph.
        named = {GRAPH: route.target[GRAPH]} if GRAPH in route.target else {}
        return {**config, "configurable": {**config.get("configurable", {}), **named}}

    async def _deliver(self, route: Route, outcome: Outcome, runs: RunRecord, *, redriven: bool) -> Thread:
        """Bring the thread to where it has the answer and has run on; return it."""
        threads = self._threads(route, runs)
        if resumed := await self._resume(threads, route, outcome):
            return resumed
        for thread in threads:
            taken, asked = await thread.history(route.idempotency_key)
            if taken is not None:
                return await self._go_on(threads, thread, taken, route, redriven=redriven)
            if asked:
                # The interrupt may have been saved between the two looks.
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
                raise TargetGone(SUPERSEDED)
        if any([await thread.gathered(route.idempotency_key) for thread in threads]):
            raise behind()
        raise TargetNotReady(
            f"no thread {route.target['thread_id']!r} with this question in {', '.join(self._graphs)} yet; "
            "do the relay and the asker share the checkpointer?",
            retry_after=NOT_YET_SECONDS,
        )

    async def _resume(self, threads: list[Thread], route: Route, outcome: Outcome) -> Thread | None:
        """Resume the thread if it shows the question; return it."""
        with ExitStack() as looks:
            for thread in threads:
                looks.enter_context(thread.looking())
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
        """Finish the run that took the answer, if a crash cut it off or a failure may be tried again."""
        if route.digest in self._ran:  # it ran to its end; what runs now is somebody else's
            return taker
        stopped = [thread for thread in threads if await thread.stopped_since(taken)]
        if not stopped:
            # A handler that failed may have kept its next question from being asked. Asking again is harmless.
            if route.digest in self._cut_short and (await taker.state()).interrupts:
                await taker.go_on(route.idempotency_key, settled=not await taker.between_questions())
            return taker
        thread = _only(stopped)
        failed = await thread.failures()
        if failed and not (redriven or self._failed.may_run_again):
            raise GraphFailedError(failed)
        await thread.go_on(route.idempotency_key, settled=bool(failed) and not redriven)
        return thread

    def _may_still_run(self, route: Route) -> bool:
        """Whether what stands beside the question without a result may still be running, and not just be cut off."""
        since = self._busy_since.setdefault(route.digest, time.monotonic())
        return time.monotonic() - since < self._running_seconds


def behind() -> TargetBusy:
    """A node that asks several people at once shows one question at a time."""
    return TargetBusy(
        "the node waits for another answer first; then the thread shows this question", retry_after=NOT_YET_SECONDS
    )


_ANSWERED_ITSELF = "the application has resumed this interrupt itself"
"""A wait that is open was not delivered by us; of our own nodes only a delivery answers the question."""


def _thread_config(_: str, thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def _only(threads: list[Thread]) -> Thread:
    if len(threads) > 1:
        names = ", ".join(thread.name for thread in threads)
        raise TargetGone(
            f"the graphs {names} share a checkpointer and a node name, so nobody can tell whose thread this is: run "
            f'them with {{"configurable": {{"thread_id": ..., "{GRAPH}": "{threads[0].name}"}}}}, or give them '
            "different node names, and redrive"
        )
    return threads[0]
