"""Finds out which questions a checkpoint shows and which answers it holds.

An answer to a question of this package names its question. An answer taken by a foreign node (one that calls
`interrupt()` itself) does not. It is identified by its position, because LangGraph makes the id of an interrupt from
the position of its task and the number of answers that the task had before.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, cast

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from awaithumans_adapters.langgraph.internals import (
    ERROR,
    ERROR_HANDLED,
    INTERRUPT,
    RESUME,
    RETURN,
    SCHEDULED,
    interrupt_id_at,
    parents_of,
)
from awaithumans_adapters.langgraph.names import GROUP, NODE, answer_to, is_ours, names_key
from awaithumans_adapters.langgraph.unmodified.interrupt_question import interrupt_id
from awaithumans_core.outcome import Outcome

UNFINISHED = (INTERRUPT, RESUME, ERROR, SCHEDULED)
"""Channels that a checkpoint stores for a task that has not finished."""


def questions(saved: CheckpointTuple, key: str | None = None) -> list[tuple[str, Interrupt]]:
    """Return the interrupts of a checkpoint that ask a question of this package, each with the id of its task.

    With a key, only interrupts that ask that question are returned.
    """
    return [
        (task_id, shown)
        for task_id, channel, value in saved.pending_writes or ()
        if channel == INTERRUPT
        for shown in _listed(value)
        if is_ours(shown.value) and (key is None or names_key(shown.value, key))
    ]


def interrupts(saved: CheckpointTuple) -> Iterator[Interrupt]:
    """Yield the interrupts that a checkpoint holds, answered or not."""
    for _, channel, value in saved.pending_writes or ():
        if channel == INTERRUPT:
            yield from (each for each in _listed(value) if isinstance(each, Interrupt))


def asking_node(shown: Interrupt) -> str:
    """Return the checkpoint namespace of the node that asks a question of this package.

    The task that shows the question may be one around that node.
    """
    return str(shown.value[NODE])


def shows_question(saved: CheckpointTuple, key: str) -> bool:
    """Whether a checkpoint shows this question, or one that replaced it when a foreign node ran again."""
    return bool(tasks_showing(saved, key))


def tasks_showing(saved: CheckpointTuple, key: str) -> set[str]:
    """Return the ids of the tasks in a checkpoint that show this question, as `shows_question` defines it."""
    return {
        task_id
        for task_id, channel, value in saved.pending_writes or ()
        if channel == INTERRUPT
        for shown in _listed(value)
        if names_key(shown.value, key) or interrupt_id(key) == shown.id
    }


def record_of(saved: CheckpointTuple, key: str) -> Mapping[str, Any] | None:
    """Return the record that a checkpoint holds of a question one of its nodes has asked, whether or not it is shown.

    Only for questions of this package. None if there is no record.
    """
    return next(
        (
            cast("Mapping[str, Any]", value)
            for _, channel, value in saved.pending_writes or ()
            if channel == RETURN and isinstance(value, dict) and cast("dict[str, Any]", value).get("key") == key
        ),
        None,
    )


class Untaken(Enum):
    """The states of a question of this package whose answer no node has taken."""

    NOT_RECORDED = "no checkpoint records that it was asked"
    OPEN = "the node that asks it is at its step"
    CONTINUED = "the node that asked it has finished without its answer"
    DECIDED = "the quorum that asked it has decided without its answer"
    REPLACED = "new input or a fork has replaced the step of the node that asked it"
    UPDATED = "update_state has replaced that step"


def untaken(saved: CheckpointTuple, key: str, *, current: bool, updated: bool) -> Untaken:
    """Return the state of a question according to one of the checkpoints that record it.

    Args:
        saved: The checkpoint. It must be read after `current` was determined, because an answer is stored before the
            next checkpoint.
        key: The question's idempotency key.
        current: Whether the checkpoint is still the latest one.
        updated: Whether `update_state` made the checkpoint that followed it.
    """
    record = record_of(saved, key)
    if record is None:
        return Untaken.NOT_RECORDED
    if answered_tasks(saved, key, ran=not updated) or Outcome.model_validate(record["outcome"]).terminal:
        return Untaken.OPEN
    if updated:
        return Untaken.UPDATED
    if NODE in record and task_ids(record[NODE])[-1] in finished(saved):  # earlier releases did not record the node
        return Untaken.DECIDED if record.get(GROUP) else Untaken.CONTINUED
    return Untaken.OPEN if current else Untaken.REPLACED


def lineage(saved: CheckpointTuple) -> dict[str, str]:
    """Return the checkpoint ids of a checkpoint and of those of the graphs around it, by checkpoint namespace."""
    where = saved.config.get("configurable", {})
    return {**parents_of(saved), where.get("checkpoint_ns", ""): where["checkpoint_id"]}


def updated_from(saved: CheckpointTuple) -> tuple[str, str] | None:
    """Return namespace and id of the checkpoint that `update_state` replaced with this one.

    None if a run made this checkpoint.
    """
    if saved.metadata.get("source") != "update" or not saved.parent_config:
        return None
    where = saved.parent_config.get("configurable", {})
    return where.get("checkpoint_ns", ""), where["checkpoint_id"]


def open_tasks(saved: CheckpointTuple) -> dict[str, str]:
    """Return the unanswered questions of this package that nodes of a checkpoint have asked: task ids by key."""
    asked_here = {
        str(opened_one["key"]): str(opened_one["outcome"]["task_id"])
        for _, channel, value in saved.pending_writes or ()
        if channel == RETURN and isinstance(value, dict)
        for opened_one in [cast("dict[str, Any]", value)]
        if "key" in opened_one and "subject" in opened_one and "outcome" in opened_one
    }
    return {key: task_id for key, task_id in asked_here.items() if not answered_tasks(saved, key)}


def answered_tasks(
    saved: CheckpointTuple, key: str | None = None, level: StateSnapshot | None = None, *, ran: bool = True
) -> set[str]:
    """Return the ids of the tasks in a checkpoint that have taken the answer to this question.

    Without a key, any answer counts.

    Args:
        saved: The checkpoint.
        key: The question's idempotency key.
        level: The snapshot of the checkpoint, which contains the positions of its tasks. Required for foreign answers.
        ran: Whether the results of its tasks come from runs. `update_state` stores results of tasks that did not run.
    """
    if key is None:
        return {task_id for task_id, _ in _answers(saved)}
    wanted = interrupt_id(key)
    if wanted is None:
        # Of a task that finishes, checkpointers keep the first list of answers, without the last answer. But a task can
        # only get past the question it shows with the answer to it, unless another answer was given there.
        holders = {task_id for task_id, answers in _answers(saved) if any(answer_to(answer, key) for answer in answers)}
        if not ran or (record_of(saved, key) or {}).get(GROUP):
            return holders  # a quorum may have decided without the answer to the question that its node shows
        led_on = {task_id for task_id, shown in questions(saved, key) if not _other_answer(shown, saved, task_id)}
        return holders | (finished(saved) - handled(saved)) & led_on
    return {
        task.id
        for task in (level.tasks if level else ())
        for number in range(len(answers_of(saved, task.id)))
        if _nth_id(_node_of(saved, task), number) == wanted
    }


def answers_not_run(saved: CheckpointTuple) -> dict[str, str]:
    """Return the nodes that have an answer to a question of this package but have not finished running with it.

    Their run was cut off, or its result could not be stored. A node has run with an answer when it has a result or a
    failure, or shows its next question. The result maps checkpoint namespaces to the key of the answered question.
    """
    failed = {task for task, channel, _ in saved.pending_writes or () if channel == ERROR}
    ended = finished(saved) | failed
    return {
        asking_node(shown): key
        for task, channel, value in saved.pending_writes or ()
        if channel == INTERRUPT and task not in ended
        for shown in _listed(value)
        if is_ours(shown.value) and task_ids(asking_node(shown))[-1] == task
        for key in _not_run_with(shown, answers_of(saved, task))
    }


def _not_run_with(shown: Interrupt, answers: Sequence[Any]) -> list[str]:
    """Return, in a list, the key of the answer that arrived after an interrupt of this package was shown.

    The list is empty if no such answer arrived.
    """
    key = str(shown.value["idempotency_key"])
    if any(answer_to(answer, key) for answer in answers):
        return [key]
    run_on = _came_after(shown, answers) and _names_a_question(answers[-1])
    return [str(answers[-1]["idempotency_key"])] if run_on else []


def _other_answer(shown: Interrupt, saved: CheckpointTuple, task_id: str) -> bool:
    """Whether this task asks a question of this package and was resumed after showing it, with answers that are stored.

    If the answer to that question is not among them, the task has continued with an answer to another question that it
    asks concurrently.
    """
    return task_ids(asking_node(shown))[-1] == task_id and _came_after(shown, answers_of(saved, task_id))


def _came_after(shown: Interrupt, answers: Sequence[Any]) -> bool:
    """Whether the last of a task's answers arrived after the task showed this interrupt of this package."""
    return any(_nth_id(asking_node(shown), number) == shown.id for number in range(len(answers)))


def _names_a_question(answer: Any) -> bool:
    """Whether an answer was given by this package. The application may have resumed the node with any other value."""
    return isinstance(answer, dict) and "idempotency_key" in answer


def finished(saved: CheckpointTuple) -> set[str]:
    """Return the ids of the tasks in a checkpoint whose result is stored or whose failure an error handler handles."""
    return {task_id for task_id, channel, _ in saved.pending_writes or () if channel not in UNFINISHED}


def handled(saved: CheckpointTuple) -> set[str]:
    """Return the ids of the tasks in a checkpoint whose failure an error handler of the graph handles.

    None runs again.
    """
    return {task_id for task_id, channel, _ in saved.pending_writes or () if channel == ERROR_HANDLED}


def answered_tasks_around(saved: CheckpointTuple) -> set[str]:
    """Return the ids of the tasks in a checkpoint that have taken an answer, and of the tasks around them."""
    taken = answered_tasks(saved)
    around = [saved.config.get("configurable", {}).get("checkpoint_ns", "")] if taken else []
    asked_by = [
        asking_node(shown)
        for task, channel, value in saved.pending_writes or ()
        if channel == INTERRUPT and task in taken
        for shown in _listed(value)
        if is_ours(shown.value)
    ]
    return taken.union(*map(task_ids, around + asked_by))


def task_ids(node: str) -> list[str]:
    """Return the task ids in a checkpoint namespace, outermost first."""
    return [part.rpartition(":")[2] for part in node.split("|")]


def answers_of(saved: CheckpointTuple, task_id: str) -> list[Any]:
    """Return the answers with which a task of a checkpoint was resumed so far, in the order of its questions."""
    none: list[Any] = []
    return next((answers for task, answers in _answers(saved) if task == task_id), none)


def foreign_answered(saved: CheckpointTuple, task: PregelTask, shown: Interrupt) -> bool:
    """Whether the answer to an interrupt of a foreign node is stored with the task that still shows the interrupt."""
    node = _node_of(saved, task)
    return any(_nth_id(node, number) == shown.id for number in range(len(answers_of(saved, task.id))))


def _node_of(saved: CheckpointTuple, task: PregelTask) -> str:
    parent = saved.config.get("configurable", {}).get("checkpoint_ns")
    return "|".join(filter(None, (parent, f"{task.name}:{task.id}")))


def _nth_id(node: str, answers: int) -> str:
    """Return the id of the next interrupt of a task that has had `answers` answers."""
    return interrupt_id_at(f"{node}|{answers}" if answers else node)


def _answers(saved: CheckpointTuple) -> Iterator[tuple[str, list[Any]]]:
    """Yield each task of a checkpoint with the answers it was resumed with, in the order of its questions."""
    for task_id, channel, value in saved.pending_writes or ():
        if channel == RESUME and (answers := _listed(value)):
            yield task_id, answers


def _listed(value: Any) -> list[Any]:
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
