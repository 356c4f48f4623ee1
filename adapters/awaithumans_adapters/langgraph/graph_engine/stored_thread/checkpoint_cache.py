"""A checkpointer that caches the checkpoints of one thread, so that each is read only once."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, copy_checkpoint
from langgraph.types import StateSnapshot

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import UNFINISHED
from awaithumans_adapters.langgraph.graph_engine.stored_thread.answers import StoredAnswers, location_of
from awaithumans_adapters.langgraph.internals import CHECKPOINTER, RETURN

LATEST = ("", None)
"""Place of the latest checkpoint of the outermost graph."""

UNAPPLIED = (*UNFINISHED, RETURN)
"""Channels a checkpoint stores for a node's tasks without applying them to the state.

The last one holds their results.
"""

FRESH_SECONDS = 0.05
"""Maximum age in seconds of the latest checkpoint with which a run may start from the cache. Else it is read again.

A thread cannot be locked. Between reading it and the first write of the run, the application might move it on without
being noticed. This limit keeps that window about as short as it is in LangGraph.
"""

BRANCH_FRESH_SECONDS = 1.0
"""Maximum age in seconds, as `FRESH_SECONDS`, for the subgraphs of the step's tasks, of which hundreds may be read.

If another process continues a subgraph in the meantime, the run starts from its earlier state, in which it waits for
its answer. The subgraph then waits again, and does nothing twice.
"""


class CheckpointCache(BaseCheckpointSaver[Any]):
    """A caching checkpointer lent to a graph, first for reading and then for the run.

    It does not read twice what it has cached.

    Everything else is delegated to its saver.

    Args:
        saver: The checkpointer whose checkpoints are cached.
        clock: Returns monotonic seconds.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], clock: Callable[[], float] = time.monotonic) -> None:
        for name in _LENT:  # bound here and not on use, because a run uses these methods dozens of times
            self.__dict__[name] = getattr(saver, name)
        self._saver = saver
        self._seen: dict[tuple[str, str | None], CheckpointTuple | None] = {}
        """Cached checkpoints by namespace and checkpoint id; the id is None for the latest."""
        self._clock = clock
        self._began = clock()
        self._over = False
        self.snapshot: StateSnapshot | None = None
        """The thread's state, subgraphs included, once it was read."""
        self.levels: Sequence[StateSnapshot] = ()
        """The states of the thread and of each active subgraph, once they were listed."""
        self.stored: StoredAnswers | None = None
        """Answers that were stored in advance of the run."""
        self._task_path = _takes_task_path(type(saver).put_writes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._saver, name)  # attributes that a saver has beyond those of the base class

    @property
    def has_read(self) -> bool:
        """Whether a checkpoint was read."""
        return bool(self._seen)

    @property
    def config_specs(self) -> list[Any]:
        """The configuration options of the saver."""
        return cast("Any", self._saver).config_specs  # type: ignore[no-any-return]

    def lent(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config with which a graph reads, or runs, through this checkpointer."""
        return {**config, "configurable": {**config.get("configurable", {}), CHECKPOINTER: self}}

    def end(self, stored: StoredAnswers | None = None) -> None:
        """Prepare the run: keep only the checkpoints from which it starts.

        They are the latest checkpoint and those of its tasks' subgraphs.

        Each of them is returned once. All others are dropped.

        Args:
            stored: Answers that are stored in advance of the run.
        """
        self.stored = stored
        self._seen = {
            where: seen
            for where, seen in self._seen.items()
            if seen is not None and _is_start(*where) and not _holds_results(seen)
        }
        self._over = True

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint as it was when it was first read."""
        self._forget_old()
        saved = self.read(config)
        return saved if self._over else _to_work_on(saved)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint as it was when it was first read, for savers with async methods."""
        self._forget_old()
        saved = await self.aread(config)
        return saved if self._over else _to_work_on(saved)

    def read(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint that its reader does not change."""
        where = location_of(config)
        return self._known(where) if where in self._seen else self._note(where, self._saver.get_tuple(config))

    async def aread(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint that its reader does not change, for savers with async methods."""
        where = location_of(config)
        return self._known(where) if where in self._seen else self._note(where, await self._saver.aget_tuple(config))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store the writes of a task of the run."""
        if self.stored is not None:
            self.stored.observe(task_id, writes)
        self._saver.put_writes(config, writes, task_id, *([task_path] if self._task_path else []))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store the writes of a task of the run, for savers with async methods."""
        if self.stored is not None:
            self.stored.observe(task_id, writes)
        await self._saver.aput_writes(config, writes, task_id, *([task_path] if self._task_path else []))

    def _forget_old(self) -> None:
        age = self._clock() - self._began if self._over else 0.0
        if age > BRANCH_FRESH_SECONDS:
            self._seen.clear()
        elif age > FRESH_SECONDS:
            self._seen.pop(LATEST, None)

    def _note(self, where: tuple[str, str | None], saved: CheckpointTuple | None) -> CheckpointTuple | None:
        if self._over:
            return self.stored.hidden(saved) if saved is not None and self.stored is not None else saved
        self._seen[where] = saved
        if saved is not None:  # the latest checkpoint may also be requested by its id
            self._seen[location_of(saved.config)] = saved
        return saved

    def _known(self, where: tuple[str, str | None]) -> CheckpointTuple | None:
        return self._seen.pop(where) if self._over else self._seen[where]


_LENT = [name for name in dir(BaseCheckpointSaver) if not name.startswith("__") and name not in vars(CheckpointCache)]
"""Names of the methods that are delegated to the saver."""


@cache
def _takes_task_path(put_writes: Callable[..., None]) -> bool:
    """Whether a saver's `put_writes` has the parameter `task_path`, which later releases of LangGraph have added."""
    return "task_path" in signature(put_writes).parameters


def _is_start(graph: str, checkpoint_id: str | None) -> bool:
    """Whether a run starts from this: the latest checkpoint of the outermost graph or of a task's visit.

    A subgraph with a memory of its own is named after its node only, and may be in a later visit by then.
    """
    visits = all(":" in part or part.isdecimal() for part in graph.split("|"))
    return checkpoint_id is None and (not graph or visits)


def _holds_results(saved: CheckpointTuple) -> bool:
    """Whether nodes of its step have ended. A graph that showed it has applied their writes to its values, in place."""
    return any(channel not in UNAPPLIED for _, channel, _ in saved.pending_writes or ())


def _to_work_on(saved: CheckpointTuple | None) -> CheckpointTuple | None:
    """Return a copy for a graph to show: it applies the writes of the checkpoint's tasks to the checkpoint in place."""
    return saved and saved._replace(checkpoint=copy_checkpoint(saved.checkpoint))
