"""An answer is stored in the checkpoint before any line of the graph runs.

Law: a graph whose checkpointer cannot be written does not run. LangGraph runs a node first and notices the failed write
afterwards, so each retry would act on the same answer again. The engine therefore writes the answer itself, under the
channel and the task where LangGraph keeps it. The run waits until the checkpointer has accepted that write: its first
read of the thread, which comes before any node, returns only then.

The run still receives the answer as its command, because only that makes LangGraph check that the interrupt is pending.
So what was stored ahead is hidden from the run's own reads; otherwise the node would find its answer twice.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Interrupt

from awaithumans_adapters.langgraph.internals import ERROR, RESUME, connection_of

Writes = Sequence[tuple[str, Any]]
"""What a saver's `put_writes` takes: channel and value."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An interrupt that waits for an answer, and the task that raised it."""

    shown: Interrupt
    """The interrupt."""
    config: RunnableConfig
    """The checkpoint in which the task is kept."""
    task_id: str
    """The task."""
    answers: tuple[Any, ...]
    """What the task was resumed with before."""
    path: tuple[str, ...]
    """The task and the tasks around it, by id."""

    def writes(self, *more: Any) -> Writes:
        """The answers of the task, with these after the ones it had before."""
        return [(RESUME, [*self.answers, *more])]


@dataclass(eq=False)
class StoredAnswers:
    """Answers stored ahead of one run, and which of them its nodes have taken."""

    waiting: Sequence[Waiting]
    storing: asyncio.Task[None] | None = None
    """Stores them and records the start of the run. None: that is done."""
    _failed: set[str] = field(default_factory=set[str])
    """Tasks that failed without taking an answer."""
    _took: set[str] = field(default_factory=set[str])
    """Tasks that wrote more than how they failed."""

    async def accepted(self) -> None:
        """Return once they are stored and the start of the run is recorded.

        Raises:
            Exception: they cannot be, so the run must not start.
        """
        if self.storing is not None:
            await self.storing

    async def refused(self) -> bool:
        """Whether they could not be stored, or the start of the run was refused."""
        if self.storing is None:
            return False
        await asyncio.wait([self.storing])
        return self.storing.cancelled() or self.storing.exception() is not None

    async def abandon(self) -> None:
        """End the storing that a run has not waited for."""
        if self.storing is not None and not self.storing.done():
            self.storing.cancel()
            await asyncio.wait([self.storing])

    def hidden(self, saved: CheckpointTuple) -> CheckpointTuple:
        """A checkpoint as it was before the answers were stored."""
        before = {each.task_id: each for each in self.waiting if place_of(each.config) == place_of(saved.config)}
        if not before or not saved.pending_writes:
            return saved
        others = [write for write in saved.pending_writes if write[1] != RESUME or write[0] not in before]
        earlier = [(task_id, *each.writes()[0]) for task_id, each in before.items() if each.answers]
        return saved._replace(pending_writes=[*others, *earlier])

    def observe(self, task_id: str, writes: Iterable[tuple[str, Any]]) -> None:
        """Note what the run writes for a task."""
        channels = {channel for channel, _ in writes}
        (self._failed if channels == {ERROR} else self._took).add(task_id)

    def not_taken(self) -> list[Waiting]:
        """Answers whose node failed before it came to its question, so that they may be given again."""
        return [
            each for each in self.waiting if each.task_id not in self._took and not self._failed.isdisjoint(each.path)
        ]

    def not_written(self) -> list[Waiting]:
        """Answers for which the run has written nothing."""
        return [each for each in self.waiting if each.task_id not in self._took]


async def end_failed_transaction(saver: object) -> None:
    """Roll back the transaction that a failed write leaves open on the connection of an `AsyncSqliteSaver`.

    The saver commits after each write and never rolls back. After a write that met another process's lock its
    connection keeps an old view of the database, in which SQLite refuses every later write for good.
    """
    with suppress(ValueError):  # the connection is closed
        if (found := connection_of(saver)) is not None and found[0].in_transaction:
            connection, lock = found
            async with lock:
                await connection.rollback()


def place_of(config: RunnableConfig) -> tuple[str, str | None]:
    """The checkpoint namespace, and the checkpoint id if it is not the latest, that a config names."""
    place = config.get("configurable", {})
    return place.get("checkpoint_ns", ""), place.get("checkpoint_id")
