"""Stores an answer in the checkpoint before any code of the graph runs.

Law: a graph whose checkpointer cannot be written does not run. LangGraph runs a node first and notices the failed write
afterwards, so each retry would act on the same answer again. The engine therefore writes the answer itself, to the
channel and the task where LangGraph keeps it, and starts the run once the checkpointer has accepted that write.

The run still receives the answer as its command, because only then does LangGraph check that the interrupt is pending.
The answers stored in advance are hidden from the run's own reads. Otherwise the node would find its answer twice.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Interrupt

from awaithumans_adapters.langgraph.internals import ERROR, RESUME, connection_of

Writes = Sequence[tuple[str, Any]]
"""Channel and value pairs, as a checkpointer's `put_writes` takes them."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An interrupt that waits for an answer, and the task that raised it."""

    shown: Interrupt
    """The pending interrupt."""
    config: RunnableConfig
    """Config of the checkpoint in which the task is kept."""
    task_id: str
    """Id of the task that raised the interrupt."""
    answers: tuple[Any, ...]
    """The answers with which the task was resumed before."""
    path: tuple[str, ...]
    """Ids of the task and the tasks around it."""

    def writes(self, *more: Any) -> Writes:
        """Return the writes that set the answers of the task: the earlier ones followed by these."""
        return [(RESUME, [*self.answers, *more])]


@dataclass(eq=False)
class StoredAnswers:
    """The answers stored in advance of one run, and which of them its nodes have taken."""

    waiting: Sequence[Waiting]
    _failed: set[str] = field(default_factory=set[str])
    """Ids of tasks that failed without taking an answer."""
    _took: set[str] = field(default_factory=set[str])
    """Ids of tasks that wrote more than their failure."""

    def hidden(self, saved: CheckpointTuple) -> CheckpointTuple:
        """Return a checkpoint as it was before the answers were stored."""
        before = {each.task_id: each for each in self.waiting if location_of(each.config) == location_of(saved.config)}
        if not before or not saved.pending_writes:
            return saved
        others = [write for write in saved.pending_writes if write[1] != RESUME or write[0] not in before]
        earlier = [(task_id, *each.writes()[0]) for task_id, each in before.items() if each.answers]
        return saved._replace(pending_writes=[*others, *earlier])

    def observe(self, task_id: str, writes: Iterable[tuple[str, Any]]) -> None:
        """Record which channels the run writes for a task."""
        channels = {channel for channel, _ in writes}
        (self._failed if channels == {ERROR} else self._took).add(task_id)

    def not_taken(self) -> list[Waiting]:
        """Return the answers whose node failed before it came to its question, so that they may be given again."""
        return [
            each for each in self.waiting if each.task_id not in self._took and not self._failed.isdisjoint(each.path)
        ]

    def not_written(self) -> list[Waiting]:
        """Return the answers for which the run has written nothing."""
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


def location_of(config: RunnableConfig) -> tuple[str, str | None]:
    """Return the checkpoint namespace that a config names, and the checkpoint id unless it is the latest."""
    where = config.get("configurable", {})
    return where.get("checkpoint_ns", ""), where.get("checkpoint_id")
