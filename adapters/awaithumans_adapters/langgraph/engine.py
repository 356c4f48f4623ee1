"""The relay's side: an outcome resumes the interrupt that asked.

The question's key tells four states of a thread apart: its interrupt is pending (resume it), it was resumed before
(delivered; go on where a crash or an error stopped), it is nowhere yet (the answer beat the checkpoint; later), or the
thread has moved on without it (superseded; park). Looking first is what makes delivering twice, too early or to a
finished thread harmless.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.errors import GraphRecursionError, InvalidUpdateError
from langgraph.types import Command, PregelTask, StateSnapshot

from awaithumans_adapters.langgraph.names import ENGINE, names_key
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import QuestionChangedError, SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

logger = logging.getLogger("awaithumans.langgraph")

RUNNING_SECONDS = 10 * 60.0
"""A node that runs beside the question is waited for this long, by this process's own clock.

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
        config: Builds the config a thread is resumed with, from graph name and thread id, for graphs that read more
            than `thread_id` from it.

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
        self._busy_since: dict[str, float] = {}

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and run it to its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer, or nobody can tell whose thread it is.
            TargetNotReady: the thread does not show the question yet, or runs just now.
            Exception: the thread has not taken the answer, or was cut off after it had; the next delivery goes on from
                there. An error a node raised after that is not raised here: the thread has recorded it, and running a
                node again that may have acted is not ours to decide.
        """
        thread_id = route.target["thread_id"]
        lock = self._locks.setdefault(thread_id, asyncio.Lock())
        async with lock:  # the library has no lock on a thread: two resumes at once would both run the rest
            try:
                await self._deliver(thread_id, route, outcome)
            except TargetNotReady:
                raise
            except BaseException:
                self._busy_since.pop(route.digest, None)
                raise
            self._busy_since.pop(route.digest, None)

    async def _deliver(self, thread_id: str, route: Route, outcome: Outcome) -> None:
        key = route.idempotency_key
        threads = [_Thread(name, graph, self._config(name, thread_id)) for name, graph in self._graphs.items()]
        if await self._resume(threads, route, outcome):
            return
        for thread in threads:
            resumed, asked = await thread.history(key)
            if resumed is not None:
                await self._go_on(threads, resumed, key)
                return
            if asked:
                # The interrupt may have been saved between the two looks.
                if await self._resume(threads, route, outcome):
                    return
                raise TargetGone("the thread has moved on: new input or a fork has replaced the question this answers")
        raise TargetNotReady(
            f"no thread {thread_id!r} with this question in {', '.join(self._graphs)} yet; "
            "do the relay and the asker share the checkpointer?",
            retry_after=NOT_YET_SECONDS,
        )

    async def _resume(self, threads: list["_Thread"], route: Route, outcome: Outcome) -> bool:
        """Resume the thread if it shows the question."""
        showing = [thread for thread in threads if await thread.pending(route.idempotency_key)]
        if not showing:
            return False
        thread = _only(showing)
        if (busy := await thread.running()) and self._may_still_run(route):
            raise TargetNotReady(
                f"{', '.join(busy)} still runs beside the question; resuming now would run it twice",
                retry_after=NOT_YET_SECONDS,
            )
        await thread.resume(route.idempotency_key, outcome)
        return True

    async def _go_on(self, threads: list["_Thread"], resumed: CheckpointTuple, key: str) -> None:
        """Finish the run that a crash cut off after the thread had taken the answer; nothing if it was not cut off."""
        stopped = [thread for thread in threads if await thread.cut_off_since(resumed)]
        if stopped:
            await _only(stopped).go_on(key)

    def _may_still_run(self, route: Route) -> bool:
        """Whether what stands beside the question without a result may still be running, and not just be cut off."""
        since = self._busy_since.setdefault(route.digest, time.monotonic())
        return time.monotonic() - since < RUNNING_SECONDS


class _Thread:
    """One thread of one graph, read and resumed."""

    def __init__(self, name: str, graph: Graph, config: RunnableConfig) -> None:
        self.name = name
        self._graph = graph
        self._config = config
        self._threaded = False

    async def pending(self, key: str) -> list[str]:
        """Ids of the interrupts that wait for this answer."""
        snapshot = await self._snapshot()
        ids: list[str] = []
        for level in _levels(snapshot):
            shown = [(task, i) for task in level.tasks for i in task.interrupts if names_key(i.value, key)]
            if not shown:
                continue
            saved = await self._saved(level.config)
            taken = _takers(saved, key) if saved else set[str]()
            # A failed node goes on showing its last interrupt, answered or not; a subgraph's is shown above it as well.
            ids += [i.id for task, i in shown if task.id not in taken and not isinstance(task.state, StateSnapshot)]
        return ids

    async def running(self) -> list[str]:
        """Nodes of the current step that are under way in the process that asked, or were cut off with it."""
        return [task.name for task in _leaves(await self._snapshot()) if _under_way(task)]

    async def resume(self, key: str, outcome: Outcome) -> None:
        """Give the answer to every interrupt that waits for it, and run on."""
        pending = await self.pending(key)
        await self._run(key, Command(resume=dict.fromkeys(pending, outcome.value())))
        if _left_standing(await self._snapshot()):
            await self.go_on(key)

    async def go_on(self, key: str) -> None:
        """Run on from the last checkpoint."""
        await self._run(key, None)

    async def history(self, key: str) -> tuple[CheckpointTuple | None, bool]:
        """The checkpoint in which the question was answered, if it was, and whether the question was ever saved."""
        asked = False
        async for saved in self._checkpoints():
            if _takers(saved, key):
                return saved, True
            for _, channel, value in saved.pending_writes or ():
                if channel == "__interrupt__" and any(names_key(shown.value, key) for shown in _listed(value)):
                    asked = True
        return None, asked

    async def cut_off_since(self, resumed: CheckpointTuple) -> bool:
        """Whether the run that took the answer in this checkpoint stopped without end, error or question."""
        if not (await self.running() or _left_standing(await self._snapshot())):
            return False
        place = resumed.config.get("configurable", {})
        root = resumed.metadata.get("parents", {}).get("") or place["checkpoint_id"]
        async for newer in self._checkpoints():
            where = newer.config.get("configurable", {})
            if where.get("checkpoint_ns"):
                continue
            if where["checkpoint_id"] == root:
                return True
            if newer.metadata.get("source") != "loop":
                return False  # new input, an update or a fork: what runs now is not what took the answer
        return False

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

        A failure of the graph's own, after it has taken the answer, is not raised. Any other is: a node that failed
        before it came to its question again has not taken the answer.
        """
        try:
            if self._threaded:
                await asyncio.to_thread(self._graph.invoke, command, self._config)
            else:
                await self._graph.ainvoke(command, self._config)
        except QuestionChangedError as changed:
            raise TargetGone(str(changed)) from changed
        except asyncio.CancelledError:
            if _cancelled_from_outside():
                raise
            await self._blame(key, RuntimeError("a node was cancelled from within"))
        except Exception as failure:
            await self._blame(key, failure)

    async def _blame(self, key: str, failure: Exception) -> None:
        """Raise a failure that leaves the answer untaken or the run unfinished; log one that is the graph's own."""
        resumed, _ = await self.history(key)
        if resumed is None or await self.pending(key) or not await self._owns(failure):
            raise failure
        where = self._config.get("configurable")
        logger.error("graph %s failed after it had taken the answer (%s)", self.name, where, exc_info=failure)

    async def _owns(self, failure: Exception) -> bool:
        """Whether the graph itself failed: recorded by the thread, or a limit of its own; not the checkpointer."""
        if isinstance(failure, GraphRecursionError | InvalidUpdateError | _NodeCancelledError):
            return True
        snapshot = await self._snapshot()
        return any(task.error for level in _levels(snapshot) for task in level.tasks)

    @property
    def _saver(self) -> BaseCheckpointSaver[Any]:
        saver = self._graph.checkpointer
        if not isinstance(saver, BaseCheckpointSaver):  # checked when the engine was built
            raise TypeError("the graph has no checkpointer")
        return saver


def _thread_config(_: str, thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


class _NodeCancelledError(Exception):
    """Stands for a CancelledError that nobody outside the graph asked for."""


def _only(threads: list[_Thread]) -> _Thread:
    if len(threads) > 1:
        names = ", ".join(thread.name for thread in threads)
        raise TargetGone(
            f"the graphs {names} share a checkpointer and a node name, so nobody can tell whose thread this is: "
            "give them different node names, or relays of their own, and redrive"
        )
    return threads[0]


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _levels(snapshot: StateSnapshot) -> Iterator[StateSnapshot]:
    """The thread's current state and that of each subgraph under way in it."""
    yield snapshot
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _levels(task.state)


def _leaves(snapshot: StateSnapshot) -> Iterator[PregelTask]:
    """The tasks of the current step; of a subgraph under way, its own."""
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot) and task.state.tasks:
            yield from _leaves(task.state)
        else:
            yield task


def _under_way(task: PregelTask) -> bool:
    """Neither finished, nor failed, nor waiting for an answer."""
    return task.result is None and task.error is None and not task.interrupts


def _left_standing(snapshot: StateSnapshot) -> bool:
    """Every task of the step is done and the step is not taken: two runs at once each left it to the other."""
    return bool(snapshot.tasks) and all(task.result is not None for task in snapshot.tasks)


def _takers(saved: CheckpointTuple, key: str) -> set[str]:
    """The tasks of a checkpoint that have taken the answer to this question."""
    return {
        task_id
        for task_id, channel, value in saved.pending_writes or ()
        if channel == "__resume__" and any(names_key(answer, key) for answer in _listed(value))
    }


def _listed(value: Any) -> list[Any]:
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
