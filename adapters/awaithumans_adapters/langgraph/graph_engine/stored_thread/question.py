"""One question of a thread: the interrupts that wait for its answer, and the checkpoints that record it."""

from collections.abc import Mapping, Sequence

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Interrupt, StateSnapshot

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import (
    Untaken,
    answered_tasks,
    answers_of,
    asking_node,
    finished,
    lineage,
    questions,
    record_of,
    shows_question,
    task_ids,
    tasks_showing,
    untaken,
    updated_from,
)
from awaithumans_adapters.langgraph.delivery.history import Search, named, search
from awaithumans_adapters.langgraph.graph_engine.stored_thread.answers import Waiting
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread, id_of, namespace_of
from awaithumans_adapters.langgraph.names import NODE, is_ours, names_key, node_in
from awaithumans_adapters.langgraph.unmodified.interrupt_question import interrupt_id, keys_of

BY_PRECEDENCE = (
    Untaken.OPEN,
    Untaken.CONTINUED,
    Untaken.DECIDED,
    Untaken.UPDATED,
    Untaken.REPLACED,
    Untaken.NOT_RECORDED,
)
"""Order of precedence of the states of a question that several checkpoints record.

One such question is a question with a shared key.
"""


class Question:
    """One question of a thread.

    Args:
        thread: The thread.
        key: The question's idempotency key.
        asked_at: The checkpoints that the route of the question names (`Route.asked_at`). None: they are searched for.
        so_far: The search for them. Default: a new one.
        seconds: Time limit of the search.
    """

    def __init__(
        self,
        thread: StoredThread,
        key: str,
        *,
        asked_at: Mapping[str, str] | None = None,
        so_far: Search | None = None,
        seconds: float | None = None,
    ) -> None:
        self.key = key
        self._thread = thread
        self._asked_at = asked_at
        self._search = so_far or Search()
        self._seconds = seconds
        self._unmodified = interrupt_id(key) is not None

    # --- Interrupts that wait for the answer --------------------------------------------------------------------------

    async def waiting(self) -> Sequence[Waiting]:
        """Return the interrupts that wait for the answer, as the thread shows them."""
        if self._unmodified:
            return await self._waiting_unmodified()
        saved = await self._thread.latest()
        if saved is None:
            return []
        # A node goes on showing the question of a subgraph, or of a task it calls, after that has received its answer
        # and the node itself has failed. So the node that asked is checked.
        shown = await self._shown(saved, self.key)
        return [found for each in shown if (found := await waiting_at(self._thread, each, self.key))] or (
            await self._waiting_concurrently(saved)
        )

    async def _waiting_concurrently(self, saved: CheckpointTuple) -> list[Waiting]:
        """Return the interrupts of nodes that have asked this question concurrently with the ones they show.

        A node that asks several people at once shows one question at a time and takes each answer by its key. It is
        therefore given this answer in place of the one to the question it shows.
        """
        node = node_in(self.key, self._thread.id)
        others = [each for each in await self._shown(saved) if node in (None, asking_node(each))]
        return [
            waiting
            for each in others
            if (waiting := await waiting_at(self._thread, each, each.value["idempotency_key"]))
            and await self._takes(waiting, asking_node(each))
        ]

    async def _takes(self, waiting: Waiting, node: str) -> bool:
        """Whether this node, which shows another question, has asked this one and has no answer to it."""
        saved = await self._thread.checkpoint(waiting.config)
        record = record_of(saved, self.key) if saved else None
        return bool(saved and record and record.get(NODE) == node and not answered_tasks(saved, self.key))

    async def _waiting_unmodified(self) -> list[Waiting]:
        waiting: list[Waiting] = []
        for level in await self._thread.levels():
            shown = [(task, i) for task in level.tasks for i in task.interrupts if self._is_asked_by(i)]
            if not shown:
                continue
            if (saved := await self._thread.checkpoint(level.config)) is None:
                continue
            taken = answered_tasks(saved, self.key, level)
            # A failed node goes on showing its last interrupt, answered or not. An interrupt in a subgraph is also
            # shown above it.
            waiting += [
                _waiting(saved, i, f"{namespace_of(saved)}|{task.name}:{task.id}", task.id)
                for task, i in shown
                if task.id not in taken and not isinstance(task.state, StateSnapshot)
            ]
        return waiting

    def _is_asked_by(self, shown: Interrupt) -> bool:
        """Whether this interrupt asks the question."""
        if is_ours(shown.value):
            return names_key(shown.value, self.key)
        return self.key in keys_of(shown, self._thread.id)

    async def _shown(self, saved: CheckpointTuple, key: str | None = None) -> list[Interrupt]:
        """Return the interrupts with this question (default: any of this package) of the nodes at which this graph is.

        The thread may belong to another graph.
        """
        shown = {each.id: each for _, each in questions(saved, key)}  # a node also shows the questions asked inside it
        if not shown:
            return []
        # In a subgraph with its own memory, a node's namespace contains the node's name instead of the id of the visit.
        visits = {named for task in (await self._thread.state()).tasks for named in (task.id, task.name)}
        return [each for each in shown.values() if asking_node(each).partition("|")[0].rpartition(":")[2] in visits]

    # --- Checkpoints that record the question -------------------------------------------------------------------------

    async def recorded_in(self) -> list[CheckpointTuple]:
        """Return the checkpoints in which the question was asked, in their current state, newest first.

        Raises:
            SearchUnfinishedError: the route does not name them, and the time limit of the search is reached.
        """
        if self._asked_at is not None:
            places = named(self._asked_at, self.key, self._thread.id)
            found = [saved for where in places if (saved := await self._thread.at(*where))]
            if not self._unmodified:
                return found
            # The route of a foreign interrupt names the outermost checkpoint, which also shows the questions of its
            # subgraphs.
            for saved in found:
                if matching := await self._inside(saved):
                    return matching
        if not self._search.complete:
            await search(
                self._thread.saver,
                self._thread.id,
                self.key,
                self._search,
                lambda saved, _: self._is_recorded_in(saved),
                saver_is_sync=self._thread.saver_is_sync,
                seconds=self._seconds,
            )
        return [saved for config in self._search.found if (saved := await self._thread.checkpoint(config))]

    async def _inside(self, saved: CheckpointTuple) -> list[CheckpointTuple]:
        """Return the checkpoints of subgraphs in which a foreign interrupt was asked, or this one if it was asked here.

        Subgraphs are read in the tasks that show the interrupt, or in all tasks if a later interrupt has replaced it.
        """
        level = await self._level(saved)
        askers = tasks_showing(saved, self.key) or {task.id for task in (level.tasks if level else ())}
        around = f"{namespace_of(saved)}|" if namespace_of(saved) else ""
        for task in level.tasks if level else ():
            if task.id not in askers:
                continue
            async for page in self._thread.pages(f"{around}{task.name}:{task.id}"):
                for inner in page:
                    if await self._is_recorded_in(inner):
                        return await self._inside(inner)
        return [saved] if await self._is_recorded_in(saved) else []

    async def _is_recorded_in(self, saved: CheckpointTuple) -> bool:
        return shows_question(saved, self.key) or bool(record_of(saved, self.key)) or await self._took_answer(saved)

    async def answered_in(self, recorded_in: Sequence[CheckpointTuple]) -> CheckpointTuple | None:
        """Return the checkpoint whose task has taken the answer to this question, or None."""
        for saved in recorded_in:
            if await self._took_answer(saved):
                return saved
        return None

    async def _took_answer(self, saved: CheckpointTuple) -> bool:
        if not self._unmodified:
            if not answered_tasks(saved, self.key) or answered_tasks(saved, self.key, ran=False):
                return bool(answered_tasks(saved, self.key))
            return not await self._was_updated(saved)
        return bool(answered_tasks(saved)) and bool(answered_tasks(saved, self.key, await self._level(saved)))

    def asked_in(self, recorded_in: Sequence[CheckpointTuple]) -> bool:
        """Whether one of these checkpoints has shown the question."""
        return any(shows_question(saved, self.key) for saved in recorded_in)

    async def queued(self, recorded_in: Sequence[CheckpointTuple]) -> bool:
        """Whether a question of this package waits without being shown.

        A node shows only one of the places in which it waits.
        """
        for saved in recorded_in:
            if not questions(saved, self.key) or not await self._is_latest(saved):
                continue
            shown = await self._shown(saved, self.key)
            if any([await waiting_at(self._thread, each, self.key) for each in shown]):
                return True
        return False

    async def untaken(self, recorded_in: Sequence[CheckpointTuple]) -> Untaken:
        """Return the state of a question of this package that is neither shown nor queued and has no answer."""
        states = {await self._untaken_in(saved) for saved in recorded_in if record_of(saved, self.key)}
        return next((state for state in BY_PRECEDENCE if state in states), Untaken.NOT_RECORDED)

    async def _untaken_in(self, saved: CheckpointTuple) -> Untaken:
        current = await self._is_latest(saved)
        return untaken(saved, self.key, current=current, updated=not current and await self._was_updated(saved))

    async def node_missing(self) -> bool:
        """Whether the thread shows the question at a node that this graph does not have.

        Another release of the graph may have it.
        """
        saved = await self._thread.latest()
        askers = tasks_showing(saved, self.key) if saved else set[str]()
        return bool(askers) and askers.isdisjoint({task.id for task in (await self._thread.state()).tasks})

    async def removed(self) -> bool:
        """Whether a graph has newer checkpoints than the one the route names, which is no longer stored."""
        for graph, checkpoint_id in (self._asked_at or {}).items():
            latest = await self._thread.at(graph)
            newer = latest is not None and id_of(latest) > checkpoint_id
            if newer and await self._thread.at(graph, checkpoint_id) is None:
                return True
        return False

    async def _is_latest(self, saved: CheckpointTuple) -> bool:
        """Whether a checkpoint is still the latest one, in its graph and in those around it."""
        for graph, checkpoint_id in lineage(saved).items():
            latest = await self._thread.at(graph)
            if latest is None or id_of(latest) != checkpoint_id:
                return False
        return True

    async def _was_updated(self, saved: CheckpointTuple) -> bool:
        """Whether `update_state` made the checkpoint after this one, or after one of those around it."""
        for graph, checkpoint_id in lineage(saved).items():
            async for page in self._thread.pages(graph, source="update"):
                if any(updated_from(newer) == (graph, checkpoint_id) for newer in page):
                    return True
                if id_of(page[-1]) <= checkpoint_id:
                    break
        return False

    async def _level(self, saved: CheckpointTuple) -> StateSnapshot | None:
        """Return a checkpoint as its graph shows it, or None for a graph inside a node that LangGraph does not find."""
        try:
            return await self._thread.state_at(saved.config)
        except ValueError:
            return None


async def waiting_at(thread: StoredThread, shown: Interrupt, key: str) -> Waiting | None:
    """Return a question of this package if it has no answer in the last checkpoint of its node, else None."""
    node = asking_node(shown)
    graph, _, visit = node.rpartition("|")
    while (saved := await thread.at(graph)) is None and graph:
        # the checkpoint of a LangGraph task is that of the graph whose node called it
        graph = graph.rpartition("|")[0]
    task_id = visit.rpartition(":")[2]
    if saved is None or task_id in answered_tasks(saved, key) | finished(saved):  # a quorum may end without this answer
        return None
    if task_id not in {writer for writer, _ in questions(saved, key)}:
        return None
    return _waiting(saved, shown, node, task_id)


def _waiting(saved: CheckpointTuple, shown: Interrupt, node: str, task_id: str) -> Waiting:
    return Waiting(shown, saved.config, task_id, tuple(answers_of(saved, task_id)), tuple(task_ids(node)))
