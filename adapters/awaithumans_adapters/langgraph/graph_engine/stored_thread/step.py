"""The current step of a thread: which of its nodes run, failed or were cut off, and which have an answer."""

from collections.abc import Iterator, Sequence
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import PregelTask, StateSnapshot

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import (
    answered_tasks,
    answered_tasks_around,
    answers_not_run,
    finished,
    foreign_answered,
    handled,
)
from awaithumans_adapters.langgraph.delivery.classification import NextQuestion
from awaithumans_adapters.langgraph.delivery.failed_runs import node_failed
from awaithumans_adapters.langgraph.graph_engine.stored_thread.breakpoints import Breakpoints
from awaithumans_adapters.langgraph.graph_engine.stored_thread.question import waiting_at
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread, id_of
from awaithumans_adapters.langgraph.internals import parents_of, was_cancelled
from awaithumans_adapters.langgraph.names import is_ours


class Step:
    """The current step of a thread."""

    def __init__(self, thread: StoredThread) -> None:
        self._thread = thread

    async def running_nodes(self) -> str:
        """Return the names of the nodes that run in the process that asked, or were cut off with it."""
        return ", ".join(task.name for task in _leaves(await self._thread.state()) if _under_way(task))

    async def failures(self) -> str:
        """Return the failed nodes with their errors, as text. Empty if no node failed."""
        return _in_words([task for task in await self._stopped_tasks() if not was_cancelled(task)])

    async def nodes_failed_with_answer(self) -> str:
        """Return the nodes that failed or were cut off after an answer, as text like `failures`."""
        if not (stopped := await self._stopped_tasks()):
            return ""
        answered_by = set[str]().union(*[answered_tasks_around(saved) async for saved in self._thread.current_step()])
        return _in_words([task for task in stopped if task.id in answered_by])

    async def failed(self) -> bool:
        """Whether a failure of a node is stored, answered or not."""
        return any(_failed(task) for level in await self._thread.levels() for task in level.tasks)

    async def unstored_nodes(self, key: str) -> str:
        """Return the names of nodes that have the answer to a question other than this one and no stored result."""
        nodes = [
            node.rpartition("|")[2].partition(":")[0]
            for level in await self._thread.levels()
            if (saved := await self._thread.checkpoint(level.config))
            for node, other in answers_not_run(saved).items()
            if other != key
        ]
        return ", ".join(nodes)

    async def shows_answered(self, key: str) -> bool:
        """Whether all that a node around a subgraph shows was answered or replaced, so that it shows no new question.

        Two concurrent runs, or a run that was cut off, leave a thread in this state.
        """
        return await self._answered_not_run() and not await self.unstored_nodes(key) and not await self.running_nodes()

    async def next_question(self) -> NextQuestion:
        """Return the kind of question at which the thread waits."""
        if not (await self._thread.state()).interrupts:
            return NextQuestion.NONE
        for level in await self._thread.levels():
            if (saved := await self._thread.checkpoint(level.config)) and answered_tasks(saved) - finished(saved):
                return NextQuestion.SAME_STEP
        return NextQuestion.NEXT_STEP

    async def stopped_since(self, answered_in: CheckpointTuple) -> bool:
        """Whether the run that took the answer in this checkpoint failed or was cut off.

        A run is cut off if it reached neither its end nor its next question.
        """
        unfinished = (
            await self.running_nodes()
            or await self._stopped_tasks()
            or any(not_applied(level) for level in await self._thread.levels())
            or await self._answered_not_run()
        )
        if not unfinished or await self._paused():
            return False
        root = _root(answered_in)
        if await self._moved_on(root):
            return False
        async for newer in self._thread.checkpoints():
            where = newer.config.get("configurable", {})
            if _root(newer) != root and answered_tasks(newer):
                return False  # a later answer was taken; the delivery of that answer continues the thread
            if where.get("checkpoint_ns"):
                continue
            if id_of(newer) <= root:
                return id_of(newer) == root
        return False

    async def _moved_on(self, root: str) -> bool:
        """Whether new input, an update or a fork came after a checkpoint.

        If so, the current run is not the one that continued from there.
        """
        for source in ("input", "update", "fork"):
            async for page in self._thread.pages("", source=source, size=1):
                if id_of(page[0]) > root:
                    return True
                break
        return False

    async def _paused(self) -> bool:
        """Whether the thread waits at a static breakpoint (`interrupt_before`, `interrupt_after`) of its graph."""
        breakpoints = Breakpoints(self._thread.graph)
        if not breakpoints:
            return False
        for level in await self._thread.levels():
            saved = await self._thread.checkpoint(level.config)
            if saved is None or not breakpoints.may_hold(saved, level):
                continue
            ran_before = (await self._thread.state_at(level.parent_config)).next if level.parent_config else ()
            if breakpoints.holds(saved, level, ran_before):
                return True
        return False

    async def _stopped_tasks(self) -> list[PregelTask]:
        """Return the tasks that failed or were cancelled.

        A failure stays stored after the node has run again, to its end or to a question that waits. Such tasks are left
        out.
        """
        return [
            task
            for level in await self._thread.levels()
            for task in await self._unhandled(level)
            if _failed(task) and (not task.interrupts or await self._shows_only_answered(level, task))
        ]

    async def _unhandled(self, level: StateSnapshot) -> list[PregelTask]:
        """Return the tasks of a level, except those whose failure an error handler of the graph handles."""
        saved = await self._thread.checkpoint(level.config) if any(task.error for task in level.tasks) else None
        over = handled(saved) if saved else set[str]()
        return [task for task in level.tasks if task.id not in over]

    async def _answered_not_run(self) -> bool:
        """Whether a node has the answer to the question it shows, because its run was cut off.

        A node around a subgraph goes on showing the question asked inside it until its own run is stored.
        """
        for level in await self._thread.levels():
            if (saved := await self._thread.checkpoint(level.config)) and answers_not_run(saved):
                return True
            for task in await self._unhandled(level):
                if task.interrupts and task.result is None and await self._shows_only_answered(level, task):
                    return True
        return False

    async def _shows_only_answered(self, level: StateSnapshot, task: PregelTask) -> bool:
        """Whether every interrupt that a task of this level shows has its answer."""
        saved = await self._thread.checkpoint(level.config)
        return saved is not None and all([await self._has_answer(saved, task, shown) for shown in task.interrupts])

    async def _has_answer(self, saved: CheckpointTuple, task: PregelTask, shown: Any) -> bool:
        if not is_ours(shown.value):
            return foreign_answered(saved, task, shown)
        return await waiting_at(self._thread, shown, shown.value["idempotency_key"]) is None


def not_applied(level: StateSnapshot) -> bool:
    """Whether every task of the step is done but the step was not applied.

    This happens if two runs were active at once and each left the step to the other.
    """
    return bool(level.tasks) and all(task.result is not None for task in level.tasks)


def _root(saved: CheckpointTuple) -> str:
    """Return the id of the checkpoint of the outermost graph around this one."""
    return parents_of(saved).get("") or id_of(saved)


def _leaves(snapshot: StateSnapshot) -> Iterator[PregelTask]:
    """Yield the tasks of the current step; for an active subgraph, the tasks of that subgraph."""
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot) and task.state.tasks:
            yield from _leaves(task.state)
        else:
            yield task


def _under_way(task: PregelTask) -> bool:
    """Whether a task has neither finished nor failed, and does not wait for an answer."""
    return task.result is None and task.error is None and not task.interrupts


def _failed(task: PregelTask) -> bool:
    """Whether a failure of this task is stored, and no result.

    A task around a subgraph fails with the failure inside it. It counts as failed itself only if the subgraph has
    ended.
    """
    inside = isinstance(task.state, StateSnapshot) and bool(task.state.tasks)
    return task.error is not None and task.result is None and not inside


def _in_words(failed: Sequence[PregelTask]) -> str:
    return ", ".join(node_failed(task.name, task.error) for task in failed)
