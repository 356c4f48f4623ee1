"""The relay's side: an outcome resumes the interrupt that asked.

The question's key tells four states of a thread apart: its interrupt is pending (resume it), it was resumed before
(delivered; go on where a crash or an error stopped), it is nowhere yet (the answer beat the checkpoint; later), or the
thread has moved on without it (superseded; park). Looking first is what makes delivering twice, too early or to a
finished thread harmless.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, cast
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.types import Command, PregelTask, StateSnapshot

from awaithumans_adapters.langgraph.names import ENGINE, names_key
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

logger = logging.getLogger("awaithumans.langgraph")

RUNNING_SECONDS = 10 * 60.0
"""A node that runs beside the question is waited for this long after the answer.

Then it counts as cut off, and the thread is resumed, which runs it again.
"""


class Graph(Protocol):
    """What is used of a compiled graph. The library's own class leaves types open that would be unknown here."""

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any] | bool | None:
        """A saver, or what stands for none."""
        ...

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """How a thread stands."""
        ...

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The same, for savers with async methods."""
        ...

    def invoke(self, command: Any, config: RunnableConfig, /) -> Any:
        """Run a thread to its end or its next interrupt."""
        ...

    async def ainvoke(self, command: Any, config: RunnableConfig, /) -> Any:
        """The same, for async nodes."""
        ...


NOT_YET_SECONDS = 1.0
"""A checkpoint follows the creation of the task within moments."""


class GraphEngine:
    """Resumes threads of graphs that live in the relay's process.

    Args:
        graphs: Compiled graphs by name, each with a checkpointer that outlives the process. The thread is found by its
            question's key, so names are for people.
        config: Builds the config a thread is resumed with, for graphs that read more than `thread_id` from it.

    Raises:
        SettingsError: a graph has no checkpointer.
    """

    name = ENGINE

    def __init__(
        self, graphs: Mapping[str, Graph], *, config: Callable[[str, str], RunnableConfig] | None = None
    ) -> None:
        for name, graph in graphs.items():
            if not isinstance(graph.checkpointer, BaseCheckpointSaver):
                raise SettingsError(f"graph {name!r} has no checkpointer, so no thread of it can be resumed")
        self._graphs = dict(graphs)
        self._config = config or _thread_config
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and run it to its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer.
            TargetNotReady: the thread does not show the question yet.
            Exception: the thread has not taken the answer, or was cut off after it had; the next delivery goes on from
                there. An error a node raised after that is not raised here: the thread has recorded it, and running a
                node again that may have acted is not ours to decide.
        """
        thread_id = route.target["thread_id"]
        lock = self._locks.setdefault(thread_id, asyncio.Lock())
        async with lock:  # the library has no lock on a thread: two resumes at once would both run the rest
            for name, graph in self._graphs.items():
                thread = _Thread(graph, self._config(name, thread_id))
                if await thread.take(route.idempotency_key, outcome):
                    return
        raise TargetNotReady(
            f"no thread {thread_id!r} with this question in {', '.join(self._graphs)} yet",
            retry_after=NOT_YET_SECONDS,
        )


class _Thread:
    """One thread of one graph, read and resumed."""

    def __init__(self, graph: Graph, config: RunnableConfig) -> None:
        self._graph = graph
        self._config = config
        self._threaded = False

    async def take(self, key: str, outcome: Outcome) -> bool:
        """Give the thread the answer, now or already. False when it does not know the question."""
        if await self._resume_pending(key, outcome):
            return True
        resumed, asked = await self._history(key)
        if resumed is not None:
            await self._finish(key, resumed)
            return True
        if not asked:
            return False
        # The interrupt may have been saved between the two looks.
        if await self._resume_pending(key, outcome):
            return True
        raise TargetGone("the thread has moved on: new input or a fork has replaced the question this answers")

    async def _resume_pending(self, key: str, outcome: Outcome) -> bool:
        snapshot = await self._snapshot()
        pending = [interrupt.id for interrupt in snapshot.interrupts if names_key(interrupt.value, key)]
        if not pending or await self._taken(snapshot, key):
            return False
        if self._answer_is_fresh(outcome, snapshot) and (busy := await self._running(snapshot)):
            raise TargetNotReady(
                f"{', '.join(busy)} still runs beside the question; resuming now would run it twice",
                retry_after=NOT_YET_SECONDS,
            )
        await self._run(key, Command(resume=dict.fromkeys(pending, outcome.value())))
        return True

    async def _taken(self, snapshot: StateSnapshot, key: str) -> bool:
        """Whether the node that shows the question has its answer already.

        A failed node goes on showing its last interrupt.
        """
        for level in _levels(snapshot):
            if any(names_key(interrupt.value, key) for task in level.tasks for interrupt in task.interrupts):
                saved = await self._saved(level.config)
                if saved is not None and _takers(saved, key):
                    return True
        return False

    async def _running(self, snapshot: StateSnapshot) -> list[str]:
        """Nodes of the current step that have written nothing yet.

        They are under way in the process that asked, or cut off with it.
        """
        saved = await self._saved(snapshot.config)
        wrote = {task_id for task_id, _, _ in (saved.pending_writes if saved else None) or ()}
        return [task.name for task in snapshot.tasks if task.id not in wrote]

    def _answer_is_fresh(self, outcome: Outcome, snapshot: StateSnapshot) -> bool:
        since = outcome.completed_at or outcome.timed_out_at
        if since is None and snapshot.created_at is not None:
            since = datetime.fromisoformat(snapshot.created_at)
        return since is not None and (datetime.now(UTC) - since).total_seconds() < RUNNING_SECONDS

    async def _history(self, key: str) -> tuple[CheckpointTuple | None, bool]:
        """The checkpoint in which the question was answered, if it was, and whether the question was ever saved."""
        asked = False
        async for saved in self._checkpoints():
            if _takers(saved, key):
                return saved, True
            for _, channel, value in saved.pending_writes or ():
                if channel == "__interrupt__" and any(names_key(shown.value, key) for shown in _listed(value)):
                    asked = True
        return None, asked

    async def _finish(self, key: str, resumed: CheckpointTuple) -> None:
        """Go on where a crash or an error stopped the node after it had taken the answer."""
        head = await self._snapshot()
        takers = _takers(resumed, key)
        if any(task.id in takers and _cut_off(task, key) for task in _tasks(head)):
            await self._run(key, None)

    # A saver without async methods (SQLite's sync one, for instance) means a graph of sync nodes: it runs in a thread.

    async def _snapshot(self) -> StateSnapshot:
        if not self._threaded:
            try:
                return await self._graph.aget_state(self._config, subgraphs=True)
            except NotImplementedError:
                self._threaded = True
        return await asyncio.to_thread(self._graph.get_state, self._config, subgraphs=True)

    async def _checkpoints(self) -> AsyncGenerator[CheckpointTuple]:
        """Every checkpoint of the thread, newest first, subgraphs included."""
        where: RunnableConfig = {"configurable": {"thread_id": self._config.get("configurable", {})["thread_id"]}}
        if self._threaded:
            for saved in await asyncio.to_thread(lambda: list(self._saver.list(where))):
                yield saved
        else:
            async for saved in self._saver.alist(where):
                yield saved

    async def _saved(self, config: RunnableConfig) -> CheckpointTuple | None:
        if self._threaded:
            return await asyncio.to_thread(self._saver.get_tuple, config)
        return await self._saver.aget_tuple(config)

    async def _run(self, key: str, command: Command[Any] | None) -> None:
        """Run to the end or the next question.

        A failure that the thread has recorded after it had taken the answer is the graph's own and is not raised. Any
        other is: a node that failed before it came to its question again has not taken the answer.
        """
        try:
            if self._threaded:
                await asyncio.to_thread(self._graph.invoke, command, self._config)
            else:
                await self._graph.ainvoke(command, self._config)
        except Exception:
            resumed, _ = await self._history(key)
            if resumed is None or not any(task.error for task in _tasks(await self._snapshot())):
                raise
            logger.exception("the graph failed after it had taken the answer (%s)", self._config.get("configurable"))

    @property
    def _saver(self) -> BaseCheckpointSaver[Any]:
        saver = self._graph.checkpointer
        if not isinstance(saver, BaseCheckpointSaver):  # checked when the engine was built
            raise TypeError("the graph has no checkpointer")
        return saver


def _thread_config(_: str, thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def _levels(snapshot: StateSnapshot) -> Iterator[StateSnapshot]:
    """The thread's current state and that of each subgraph under way in it."""
    yield snapshot
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _levels(task.state)


def _tasks(snapshot: StateSnapshot) -> Iterator[PregelTask]:
    """The tasks of the current step, those of subgraphs included."""
    for level in _levels(snapshot):
        yield from level.tasks


def _takers(saved: CheckpointTuple, key: str) -> set[str]:
    """The tasks of a checkpoint that have taken the answer to this question."""
    return {
        task_id
        for task_id, channel, value in saved.pending_writes or ()
        if channel == "__resume__" and any(names_key(answer, key) for answer in _listed(value))
    }


def _cut_off(task: PregelTask, key: str) -> bool:
    """Neither finished, nor failed, nor waiting for the answer to another question."""
    waiting = any(not names_key(interrupt.value, key) for interrupt in task.interrupts)
    return task.result is None and task.error is None and not waiting


def _listed(value: Any) -> list[Any]:
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
