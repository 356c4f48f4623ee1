"""Whose answers a checkpoint holds.

An answer to a question of ours names the question. One that a foreign node has taken does not: it is told apart by its
place, for the id of an interrupt is made of the place of its task and the number of answers the task had before.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from awaithumans_adapters.langgraph.foreign import interrupt_id
from awaithumans_adapters.langgraph.names import PLACE, answer_to, is_ours, names_key

RESUME = "__resume__"
"""The channel under which a checkpoint keeps the answers that a task was resumed with."""

ERROR = "__error__"
"""The channel under which a checkpoint keeps how a task failed."""

UNFINISHED = ("__interrupt__", RESUME, ERROR, "__scheduled__")
"""What a checkpoint keeps of a task that has not finished."""


def questions(saved: CheckpointTuple, key: str) -> list[tuple[str, Interrupt]]:
    """The interrupts of a checkpoint with this question of ours, each with the task that shows it."""
    return [
        (task_id, shown)
        for task_id, channel, value in saved.pending_writes or ()
        if channel == "__interrupt__"
        for shown in _listed(value)
        if is_ours(shown.value) and names_key(shown.value, key)
    ]


def interrupts(saved: CheckpointTuple) -> Iterator[Interrupt]:
    """The interrupts that a checkpoint holds, answered or not."""
    for _, channel, value in saved.pending_writes or ():
        if channel == "__interrupt__":
            yield from (each for each in _listed(value) if isinstance(each, Interrupt))


def asker(shown: Interrupt) -> str:
    """The node that asks a question of ours, as a checkpoint namespace; the task that shows it may be one around it."""
    return str(shown.value[PLACE])


def asked(saved: CheckpointTuple, key: str) -> bool:
    """Whether a checkpoint shows this question, or one that took its place when a foreign node ran again."""
    return bool(showing(saved, key))


def showing(saved: CheckpointTuple, key: str) -> set[str]:
    """The tasks of a checkpoint that make it `asked`."""
    return {
        task_id
        for task_id, channel, value in saved.pending_writes or ()
        if channel == "__interrupt__"
        for shown in _listed(value)
        if names_key(shown.value, key) or interrupt_id(key) == shown.id
    }


def opened(saved: CheckpointTuple, key: str) -> bool:
    """Whether a node of a checkpoint has asked this question of ours, shown or not."""
    return any(
        channel == "__return__" and isinstance(value, dict) and cast("dict[str, Any]", value).get("key") == key
        for _, channel, value in saved.pending_writes or ()
    )


def takers(saved: CheckpointTuple, key: str | None = None, level: StateSnapshot | None = None) -> set[str]:
    """The tasks of a checkpoint that have taken the answer to this question; without a key, any answer.

    Args:
        saved: The checkpoint.
        key: The question's.
        level: The snapshot of the checkpoint, which tells the places of its tasks. Foreign answers need it.
    """
    if key is None:
        return {task_id for task_id, _ in _answers(saved)}
    wanted = interrupt_id(key)
    if wanted is None:
        # Savers keep the first list of answers of a task that finishes, without the last: but only its answer leads a
        # task on from the question it shows.
        holders = {task_id for task_id, answers in _answers(saved) if any(answer_to(answer, key) for answer in answers)}
        return holders | (finished(saved) & {task_id for task_id, _ in questions(saved, key)})
    return {
        task.id
        for task in (level.tasks if level else ())
        for number in range(len(given(saved, task.id)))
        if _nth_id(_place_of(saved, task), number) == wanted
    }


def left_over(saved: CheckpointTuple) -> dict[str, str]:
    """The nodes of a checkpoint that have the answer to their question of ours, and neither a result nor a failure.

    Their run was cut off, or its result could not be stored. By checkpoint namespace, each with its question's key.
    """
    failed = {task for task, channel, _ in saved.pending_writes or () if channel == ERROR}
    ended = finished(saved) | failed
    return {
        asker(shown): key
        for task, channel, value in saved.pending_writes or ()
        if channel == "__interrupt__" and task not in ended
        for shown in _listed(value)
        if is_ours(shown.value) and ids(asker(shown))[-1] == task
        for key in [shown.value["idempotency_key"]]
        if any(answer_to(answer, key) for answer in given(saved, task))
    }


def finished(saved: CheckpointTuple) -> set[str]:
    """The tasks of a checkpoint whose result is stored."""
    return {task_id for task_id, channel, _ in saved.pending_writes or () if channel not in UNFINISHED}


def answered(saved: CheckpointTuple) -> set[str]:
    """The tasks of a checkpoint that have taken an answer, and the tasks around them."""
    taken = takers(saved)
    around = [saved.config.get("configurable", {}).get("checkpoint_ns", "")] if taken else []
    asked_by = [
        asker(shown)
        for task, channel, value in saved.pending_writes or ()
        if channel == "__interrupt__" and task in taken
        for shown in _listed(value)
        if is_ours(shown.value)
    ]
    return taken.union(*map(ids, around + asked_by))


def ids(place: str) -> list[str]:
    """The ids of the tasks in a checkpoint namespace, outermost first."""
    return [part.rpartition(":")[2] for part in place.split("|")]


def given(saved: CheckpointTuple, task_id: str) -> list[Any]:
    """The answers that a task of a checkpoint has been resumed with so far, in the order of its questions."""
    none: list[Any] = []
    return next((answers for task, answers in _answers(saved) if task == task_id), none)


def foreign_answered(saved: CheckpointTuple, task: PregelTask, shown: Interrupt) -> bool:
    """Whether the answer to an interrupt of a foreign node is stored with the task that still shows it."""
    place = _place_of(saved, task)
    return any(_nth_id(place, number) == shown.id for number in range(len(given(saved, task.id))))


def _place_of(saved: CheckpointTuple, task: PregelTask) -> str:
    parent = saved.config.get("configurable", {}).get("checkpoint_ns")
    return "|".join(filter(None, (parent, f"{task.name}:{task.id}")))


def _nth_id(place: str, answered: int) -> str:
    """The id of a task's next interrupt after so many answers."""
    return Interrupt.from_ns(None, f"{place}|{answered}" if answered else place).id


def _answers(saved: CheckpointTuple) -> Iterator[tuple[str, list[Any]]]:
    """What each task of a checkpoint has been resumed with, in the order of its questions."""
    for task_id, channel, value in saved.pending_writes or ():
        if channel == RESUME and (answers := _listed(value)):
            yield task_id, answers


def _listed(value: Any) -> list[Any]:
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
