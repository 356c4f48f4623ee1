"""One look at a thread: each of its checkpoints is read once, by whoever asks first."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, copy_checkpoint
from langgraph.types import StateSnapshot

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import UNFINISHED
from awaithumans_adapters.langgraph.graph_engine.stored_answers import StoredAnswers, place_of
from awaithumans_adapters.langgraph.internals import CHECKPOINTER, RETURN

LATEST = ("", None)
"""The place of the latest checkpoint of the outermost graph."""

UNAPPLIED = (*UNFINISHED, RETURN)
"""What a checkpoint keeps of a node's tasks without applying it to the state, the last one their results."""

FRESH_SECONDS = 0.05
"""A run starts from what the look saw, if that is no older; else it reads the thread again.

Nobody can lock a thread. Between reading it and the first write of the run, the application might move it on, and it
would go unseen; so that this stays about as short as LangGraph has it.
"""

BRANCH_FRESH_SECONDS = 1.0
"""As `FRESH_SECONDS`, for the subgraphs of the step's tasks, of which hundreds may be read.

A subgraph that another process runs on in the meantime is started from its earlier state, in which it waits for its
answer: it waits again, and does nothing twice.
"""


class Look(BaseCheckpointSaver[Any]):
    """A checkpointer lent to a graph, to read with and then to run on with: it does not read twice what it has seen.

    All that it does not do itself, its saver does.

    Args:
        saver: Whose checkpoints.
        clock: Seconds that only grow.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], clock: Callable[[], float] = time.monotonic) -> None:
        for name in _LENT:  # here, and not when they are used: a run uses them dozens of times
            self.__dict__[name] = getattr(saver, name)
        self._saver = saver
        self._seen: dict[tuple[str, str | None], CheckpointTuple | None] = {}
        """By graph, and checkpoint if not the latest."""
        self._clock = clock
        self._began = clock()
        self._over = False
        self.snapshot: StateSnapshot | None = None
        """The thread's state, subgraphs included, once it was read."""
        self.stored: StoredAnswers | None = None
        """Answers that were stored ahead of the run."""
        self._task_path = _takes_task_path(type(saver).put_writes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._saver, name)  # what a saver has beside what all of them have

    @property
    def config_specs(self) -> list[Any]:
        """What the saver can be configured with."""
        return cast("Any", self._saver).config_specs  # type: ignore[no-any-return]

    def lent(self, config: RunnableConfig) -> RunnableConfig:
        """The config with which a graph reads, or runs, with this checkpointer."""
        return {**config, "configurable": {**config.get("configurable", {}), CHECKPOINTER: self}}

    def end(self, stored: StoredAnswers | None = None) -> None:
        """The thread runs on from the checkpoints that were seen: the latest one, and those of its tasks' subgraphs.

        Each is handed out once. Nothing else is kept.

        Args:
            stored: Answers that are stored ahead of the run.
        """
        self.stored = stored
        self._seen = {
            place: seen
            for place, seen in self._seen.items()
            if seen is not None and _is_start(*place) and not _holds_results(seen)
        }
        self._over = True

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint, as it was when it was first read."""
        self._forget_old()
        saved = self.read(config)
        return saved if self._over else _to_work_on(saved)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The same, for savers with async methods. A run gets it once the answers are stored ahead of it."""
        if self.stored is not None:
            await self.stored.accepted()
        self._forget_old()
        saved = await self.aread(config)
        return saved if self._over else _to_work_on(saved)

    def read(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint that is not changed by its reader."""
        place = place_of(config)
        return self._known(place) if place in self._seen else self._note(place, self._saver.get_tuple(config))

    async def aread(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The same, for savers with async methods."""
        place = place_of(config)
        return self._known(place) if place in self._seen else self._note(place, await self._saver.aget_tuple(config))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task of the run writes."""
        if self.stored is not None:
            self.stored.observe(task_id, writes)
        self._saver.put_writes(config, writes, task_id, *([task_path] if self._task_path else []))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task of the run writes, for savers with async methods."""
        if self.stored is not None:
            self.stored.observe(task_id, writes)
        await self._saver.aput_writes(config, writes, task_id, *([task_path] if self._task_path else []))

    def _forget_old(self) -> None:
        age = self._clock() - self._began if self._over else 0.0
        if age > BRANCH_FRESH_SECONDS:
            self._seen.clear()
        elif age > FRESH_SECONDS:
            self._seen.pop(LATEST, None)

    def _note(self, place: tuple[str, str | None], saved: CheckpointTuple | None) -> CheckpointTuple | None:
        if self._over:
            return self.stored.hidden(saved) if saved is not None and self.stored is not None else saved
        self._seen[place] = saved
        if saved is not None:  # the latest checkpoint may be asked for by its id as well
            self._seen[place_of(saved.config)] = saved
        return saved

    def _known(self, place: tuple[str, str | None]) -> CheckpointTuple | None:
        return self._seen.pop(place) if self._over else self._seen[place]


_LENT = [name for name in dir(BaseCheckpointSaver) if not name.startswith("__") and name not in vars(Look)]
"""What a look leaves to its saver."""


@cache
def _takes_task_path(put_writes: Callable[..., None]) -> bool:
    """Whether a saver's method has the parameter that later releases of LangGraph have added."""
    return "task_path" in signature(put_writes).parameters


def _is_start(graph: str, checkpoint_id: str | None) -> bool:
    """Whether a run starts from this: the latest checkpoint of the outermost graph, or of one named for a task's visit.

    A subgraph with a memory of its own is named for its node alone, and may be in a later visit by then.
    """
    visits = all(":" in part or part.isdecimal() for part in graph.split("|"))
    return checkpoint_id is None and (not graph or visits)


def _holds_results(saved: CheckpointTuple) -> bool:
    """Whether nodes of its step have ended. A graph that showed it has applied what they wrote, to the very values."""
    return any(channel not in UNAPPLIED for _, channel, _ in saved.pending_writes or ())


def _to_work_on(saved: CheckpointTuple | None) -> CheckpointTuple | None:
    """A graph that shows a checkpoint applies to it what its tasks have written."""
    return saved and saved._replace(checkpoint=copy_checkpoint(saved.checkpoint))
