"""Reads one thread of one graph, and resumes it: what it shows, which answers it has taken, and how it is continued."""

import asyncio
import hashlib
import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, contextmanager
from itertools import chain
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.constants import START, TAG_HIDDEN
from langgraph.errors import GraphRecursionError, InvalidUpdateError, UnknownInterruptError, is_invalid_resume
from langgraph.types import Command, Durability, Interrupt, PregelTask, StateSnapshot

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import (
    Untaken,
    answered,
    asked,
    asker,
    finished,
    foreign_answered,
    given,
    handled,
    ids,
    left_over,
    line,
    opened,
    opened_tasks,
    questions,
    showing,
    takers,
    untaken,
    updated_from,
)
from awaithumans_adapters.langgraph.delivery.failed_runs import GraphFailedError
from awaithumans_adapters.langgraph.delivery.history import Search, named, namespaces, newest_first, search
from awaithumans_adapters.langgraph.delivery.resume_value import kept
from awaithumans_adapters.langgraph.graph_engine.breakpoints import Breakpoints
from awaithumans_adapters.langgraph.graph_engine.checkpoint_cache import Look
from awaithumans_adapters.langgraph.graph_engine.events import Events, GraphEvent
from awaithumans_adapters.langgraph.graph_engine.stored_answers import (
    StoredAnswers,
    Waiting,
    Writes,
    end_failed_transaction,
)
from awaithumans_adapters.langgraph.internals import (
    INTERRUPT,
    RESUME,
    STRICT_RESUME,
    bound_config,
    node_tags,
    parents_of,
    was_cancelled,
)
from awaithumans_adapters.langgraph.names import PLACE, is_ours, names_key, place_in
from awaithumans_adapters.langgraph.unmodified.interrupt_question import interrupt_id, key_of, keys_of, resume_with
from awaithumans_core.engine import TargetGone
from awaithumans_core.errors import QuestionChangedError
from awaithumans_core.outcome import Outcome
from awaithumans_core.runs import RunRecord, RunsInMemory
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")


_BY_PRECEDENCE = (Untaken.OPEN, Untaken.CONTINUED, Untaken.DECIDED, Untaken.UPDATED, Untaken.REPLACED)
"""Order of precedence of the states of a question that several checkpoints record.

One such question is a question with a shared key.
"""


class Graph(Protocol):
    """The methods of a compiled graph that the engine uses.

    LangGraph's own class has type parameters that would be unknown here.
    """

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any] | bool | None:
        """The checkpointer, or a value that means there is none."""
        ...

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Return the state of a thread."""
        ...

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Return the state of a thread, for checkpointers with async methods."""
        ...

    def stream(
        self,
        command: Any,
        config: RunnableConfig,
        /,
        *,
        stream_mode: list[Any],
        subgraphs: bool,
        durability: Durability,
        context: Any = None,
    ) -> Iterator[Any]:
        """Run a thread as `invoke` does, and yield the stream parts."""
        ...

    def astream(
        self,
        command: Any,
        config: RunnableConfig,
        /,
        *,
        stream_mode: list[Any],
        subgraphs: bool,
        durability: Durability,
        context: Any = None,
    ) -> AsyncIterator[Any]:
        """Run a thread as `ainvoke` does, and yield the stream parts."""
        ...

    def invoke(self, command: Any, config: RunnableConfig, /, *, durability: Durability, context: Any = None) -> Any:
        """Run a thread to its end or its next interrupt."""
        ...

    async def ainvoke(
        self, command: Any, config: RunnableConfig, /, *, durability: Durability, context: Any = None
    ) -> Any:
        """Run a thread with async nodes to its end or its next interrupt."""
        ...


class Thread:
    """One thread of one graph, to be read and resumed.

    Args:
        name: The graph's name.
        graph: The compiled graph.
        read_graph: The graph with which the thread is read; see `internals.without_remote_states`.
        config: The config with which the thread is read and run.
        runs: Where each run is recorded before it starts. Default: in memory.
        asked_in: The checkpoints that the route of the question names (`Route.asked_at`). None: they are searched for.
        so_far: The search for them. Default: a new one.
        seconds: Time limit of the search.
        events: Receives the stream parts while the thread runs.
        context: Returns the runtime context of each run.
    """

    def __init__(
        self,
        name: str,
        graph: Graph,
        read_graph: Graph,
        config: RunnableConfig,
        runs: RunRecord | None = None,
        events: Events | None = None,
        *,
        asked_in: Mapping[str, str] | None = None,
        so_far: Search | None = None,
        seconds: float | None = None,
        context: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self.name = name
        self._events = events
        self._asked_in = asked_in
        self._search = so_far or Search()
        self._seconds = seconds
        self._context = context
        self._runs = runs or RunsInMemory()
        self._graph = graph
        self._read_graph = read_graph
        self._config = config
        self._threaded = False
        self._look: Look | None = None

    @contextmanager
    def looking(self) -> Generator[None]:
        """Cache the reads of the thread within the block, so that nothing is read twice.

        The cache ends when the thread is resumed. The run then starts from the cached checkpoints.
        """
        self._look = Look(self._saver)
        try:
            yield
        finally:
            self._look = None

    async def pending(self, key: str) -> list[Waiting]:
        """Return the interrupts that wait for this answer, as the thread shows them."""
        if interrupt_id(key) is not None:
            return await self._pending_foreign(key)
        saved = await self._saved(self._config)
        shown = await self._own(saved, key) if saved else []
        # A node goes on showing the question of a subgraph, or of a task it calls, after that has received its answer
        # and the node itself has failed. So the node that asked is checked.
        return [waiting for each in shown if (waiting := await self._waiting(each, key))] or await self._beside(key)

    async def _beside(self, key: str) -> list[Waiting]:
        """Return the interrupts of nodes that have asked this question concurrently with the ones they show.

        A node that asks several people at once shows one question at a time and takes each answer by its key. It is
        therefore given this answer in place of the one to the question it shows.
        """
        saved = await self._saved(self._config)
        place = place_in(key, self._thread_id)
        others = [each for each in await self._own(saved) if place in (None, asker(each))] if saved else []
        return [
            waiting
            for each in others
            if (waiting := await self._waiting(each, each.value["idempotency_key"]))
            and await self._takes(waiting, asker(each), key)
        ]

    async def _takes(self, waiting: Waiting, place: str, key: str) -> bool:
        """Whether the node at this place, which shows another question, has asked this one and has no answer to it."""
        saved = await self._saved(waiting.config)
        record = opened(saved, key) if saved else None
        return bool(saved and record and record.get(PLACE) == place and not takers(saved, key))

    async def _pending_foreign(self, key: str) -> list[Waiting]:
        snapshot = await self._snapshot()
        waiting: list[Waiting] = []
        for level in _levels(snapshot):
            shown = [(task, i) for task in level.tasks for i in task.interrupts if self._asks(i, key)]
            if not shown:
                continue
            if (saved := await self._saved(level.config)) is None:
                continue
            taken = takers(saved, key, level)
            # A failed node goes on showing its last interrupt, answered or not. An interrupt in a subgraph is also
            # shown above it.
            waiting += [
                _waiting_at(saved, i, f"{_namespace(saved)}|{task.name}:{task.id}", task.id)
                for task, i in shown
                if task.id not in taken and not isinstance(task.state, StateSnapshot)
            ]
        return waiting

    async def unasked(self) -> tuple[list[Interrupt], Mapping[str, Any]]:
        """Return the waiting interrupts of nodes that do not know this package, and the metadata of the thread."""
        waiting: dict[str, Interrupt] = {}
        for level in _levels(await self._snapshot()):
            shown = [
                (task, each)
                for task in level.tasks
                if not isinstance(task.state, StateSnapshot)
                for each in task.interrupts
                if not is_ours(each.value)
            ]
            if shown and (saved := await self._saved(level.config)) is not None:
                waiting |= {each.id: each for task, each in shown if not foreign_answered(saved, task, each)}
        return list(waiting.values()), cast("Mapping[str, Any]", (await self._snapshot()).metadata or {})

    async def behind(self, key: str) -> bool:
        """Whether a question of this package waits without being shown.

        A node shows only one of the places in which it waits.
        """
        for saved in await self._asked(key):
            if not questions(saved, key) or not await self._current(saved):
                continue
            if any([await self._waiting(each, key) for each in await self._own(saved, key)]):
                return True
        return False

    async def shows_old_question(self, key: str) -> bool:
        """Whether all that a node around a subgraph shows was answered or replaced, so that it shows no new question.

        Two concurrent runs, or a run that was cut off, leave a thread in this state.
        """
        return await self._answered_not_run() and not await self.left_over(key) and not await self.running()

    async def untaken(self, key: str) -> Untaken:
        """Return the state of a question of this package that `pending`, `behind` and `history` have not found."""
        states = {await self._untaken_at(saved.config, key) for saved in await self._asked(key) if opened(saved, key)}
        return next((state for state in _BY_PRECEDENCE if state in states), Untaken.NOT_OPENED)

    async def _untaken_at(self, config: RunnableConfig, key: str) -> Untaken:
        before = await self._saved(config)
        current = before is not None and await self._current(before)
        saved = await self._saved(config)
        if saved is None:
            return Untaken.NOT_OPENED
        return untaken(saved, key, current=current, updated=not current and await self._updated(saved))

    async def _updated(self, saved: CheckpointTuple) -> bool:
        """Whether `update_state` made the checkpoint after this one, or after one of those around it."""
        for graph, checkpoint_id in line(saved).items():
            pages = newest_first(self._saver, self._thread_id, graph, threaded=self._threaded, source="update")
            async for page in pages:
                if any(updated_from(newer) == (graph, checkpoint_id) for newer in page):
                    return True
                if _id(page[-1]) <= checkpoint_id:
                    break
        return False

    async def strange(self, key: str) -> bool:
        """Whether the question was asked at a node that this graph does not have.

        Another release of the graph may have it.
        """
        saved = await self._saved(self._config)
        askers = showing(saved, key) if saved else set[str]()
        return bool(askers) and askers.isdisjoint({task.id for task in (await self._snapshot()).tasks})

    async def open_questions(self) -> dict[str, str | None]:
        """Return the unanswered questions of the current step: task ids by key, None for a foreign node's question."""
        snapshot, found = await self._snapshot(), dict[str, str | None]()
        async for saved in self._current_step():
            found |= opened_tasks(saved)
        foreign = [shown for shown in snapshot.interrupts if not is_ours(shown.value)]
        return found | {key_of(shown, self._thread_id): None for shown in foreign}

    async def state(self) -> StateSnapshot:
        """Return the thread's values, the interrupts at which it waits and the nodes that run next."""
        return await self._snapshot()

    async def failures(self) -> str:
        """Return the failed nodes of the current step with their errors, as text. Empty if no node failed."""
        return _in_words([task for task in await self._stopped_tasks() if not was_cancelled(task)])

    async def failed_with_answer(self) -> str:
        """Return the nodes of the current step that failed or were cut off after an answer, as text like `failures`."""
        if not (stopped := await self._stopped_tasks()):
            return ""
        answered_by = set[str]().union(*[answered(saved) async for saved in self._current_step()])
        return _in_words([task for task in stopped if task.id in answered_by])

    async def _stopped_tasks(self) -> list[PregelTask]:
        """Return the tasks of the current step that failed or were cancelled.

        A failure stays stored after the node has run again, to its end or to a question that waits. Such tasks are left
        out.
        """
        return [
            task
            for level in _levels(await self._snapshot())
            for task in await self._unhandled(level)
            if _failed(task) and (not task.interrupts or await self._shows_answered(level, task))
        ]

    async def _unhandled(self, level: StateSnapshot) -> list[PregelTask]:
        """Return the tasks of a level, except those whose failure an error handler of the graph handles."""
        saved = await self._saved(level.config) if any(task.error for task in level.tasks) else None
        over = handled(saved) if saved else set[str]()
        return [task for task in level.tasks if task.id not in over]

    async def left_over(self, key: str) -> list[str]:
        """Return the names of nodes that have the answer to a question other than this one and no stored result."""
        return [
            place.rpartition("|")[2].partition(":")[0]
            for level in _levels(await self._snapshot())
            if (saved := await self._saved(level.config))
            for place, other in left_over(saved).items()
            if other != key
        ]

    async def between_questions(self) -> bool:
        """Whether a node of the current step has an answer, and so waits at a later question or has not finished."""
        for level in _levels(await self._snapshot()):
            if (saved := await self._saved(level.config)) and takers(saved) - finished(saved):
                return True
        return False

    async def running(self) -> list[str]:
        """Return the names of the current step's nodes that run in the process that asked, or were cut off with it."""
        return [task.name for task in _leaves(await self._snapshot()) if _under_way(task)]

    async def resume(self, key: str, waiting: Sequence[Waiting], outcome: Outcome) -> None:
        """Give the answer to every interrupt that waits for it, as returned by `pending`, and run the thread.

        First the answer is stored (see `stored_answers`), then the start of the run is recorded, then the graph runs.
        With a checkpointer that has async methods, LangGraph prepares the run in the meantime.
        """
        carried = kept(outcome, self._saver.serde)
        answers = {each.shown.id: _answer(each.shown, carried) for each in waiting}
        # A node that failed before its first question may be run again any number of times: it had no answer to act on.
        failed = any(_failed(task) for level in _levels(await self._snapshot()) for task in level.tasks)
        settled, position = failed and not any(each.answers for each in waiting), await self._position()

        async def store() -> None:
            for each in waiting:
                await self._put(each.config, each.writes(answers[each.shown.id]), each.task_id)
            await self._runs.start(position, settled=settled)

        if self._threaded or self._look is None:
            await store()
            stored = StoredAnswers(waiting)
        else:
            stored = StoredAnswers(waiting, asyncio.create_task(store()))
        try:
            result = await self._run(key, Command(resume=answers), stored)
        finally:
            await stored.abandon()
        if self._ended(result):
            return
        saved = await self._saved(self._config)
        # A step whose results were not applied holds the results of its tasks. Without pending writes nothing more has
        # to be read.
        if saved and saved.pending_writes and _left_standing(await self._snapshot(saved.config)):
            await self.go_on(key, settled=True)

    async def go_on(self, key: str, *, settled: bool) -> None:
        """Continue from the last checkpoint, once the checkpointer has accepted a write and the start is recorded.

        Args:
            key: The question's idempotency key.
            settled: As in `StartedRuns.after_start`. It is always true if every task of the step has stored its result,
                because then no node runs before the next checkpoint is stored.
        """
        settled = settled or _left_standing(await self._snapshot())
        position = await self._position()
        await self._rewrite_answers()
        await self._runs.start(position, settled=settled)
        await self._run(key, None)

    async def _position(self) -> str:
        """Return a fingerprint of the thread's progress: its checkpoints, and the finished tasks of each."""
        reached = [
            (
                place.get("checkpoint_ns", ""),
                place.get("checkpoint_id"),
                sorted(task.id for task in level.tasks if task.result is not None),
            )
            for level in _levels(await self._snapshot())
            for place in [level.config.get("configurable", {})]
        ]
        return hashlib.sha256(json.dumps(reached).encode()).hexdigest()

    async def _rewrite_answers(self) -> None:
        """Write the answers of one task of the current step once more, to prove that the checkpointer can be written.

        This changes nothing that a reader of the thread can see. A task without answers gets an empty list.
        """
        saved = await self._saved(self._config)
        tasks = (await self._snapshot()).tasks
        if saved is not None and tasks:
            await self._put(saved.config, [(RESUME, given(saved, tasks[0].id))], tasks[0].id)

    async def _put(self, config: RunnableConfig, writes: Writes, task_id: str) -> None:
        if self._threaded:
            await asyncio.to_thread(self._saver.put_writes, config, writes, task_id)
        else:
            try:
                await self._saver.aput_writes(config, writes, task_id)
            except Exception:
                await end_failed_transaction(self._saver)
                raise

    async def history(self, key: str) -> tuple[CheckpointTuple | None, bool]:
        """Return the checkpoint in which the question was answered, if any, and whether the question was ever saved."""
        found = await self._asked(key)
        for saved in found:
            if await self._took(saved, key):
                return saved, True
        return None, any(asked(saved, key) for saved in found)

    async def exists(self) -> bool:
        """Whether the thread has a checkpoint."""
        return await self._latest("") is not None

    async def passed(self) -> bool:
        """Whether a graph has newer checkpoints than the one the route names, which is no longer stored."""
        return any([await self._passed(*place) for place in (self._asked_in or {}).items()])

    async def _passed(self, graph: str, checkpoint_id: str) -> bool:
        latest = await self._latest(graph)
        if latest is None or _id(latest) <= checkpoint_id:
            return False
        return await self._saved(_at(self._config, graph, checkpoint_id)) is None

    async def _asked(self, key: str) -> list[CheckpointTuple]:
        """Return the checkpoints in which the question was asked, in their current state, newest first.

        Raises:
            SearchUnfinishedError: the route does not name them, and the time limit of the search is reached.
        """
        if self._asked_in is not None:
            places = [_at(self._config, *place) for place in named(self._asked_in, key, self._thread_id)]
            found = [saved for place in places if (saved := await self._saved(place))]
            if interrupt_id(key) is None:
                return found
            # The route of a foreign interrupt names the outermost checkpoint, which also shows the questions of its
            # subgraphs.
            for saved in found:
                if matching := await self._inside(saved, key):
                    return matching
        if not self._search.complete:
            await search(
                self._saver,
                self._thread_id,
                key,
                self._search,
                self._was_asked_in,
                threaded=self._threaded,
                seconds=self._seconds,
            )
        return [saved for place in self._search.found if (saved := await self._saved(place))]

    async def _inside(self, saved: CheckpointTuple, key: str) -> list[CheckpointTuple]:
        """Return the checkpoints of subgraphs in which a foreign interrupt was asked, or this one if it was asked here.

        Subgraphs are read in the tasks that show the interrupt, or in all tasks if a later interrupt has replaced it.
        """
        level = await self._level(saved)
        askers = showing(saved, key) or {task.id for task in (level.tasks if level else ())}
        around = f"{_namespace(saved)}|" if _namespace(saved) else ""
        for task in level.tasks if level else ():
            if task.id not in askers:
                continue
            graph = f"{around}{task.name}:{task.id}"
            async for page in newest_first(self._saver, self._thread_id, graph, threaded=self._threaded):
                for inner in page:
                    if await self._was_asked_in(inner, key):
                        return await self._inside(inner, key)
        return [saved] if await self._was_asked_in(saved, key) else []

    async def _was_asked_in(self, saved: CheckpointTuple, key: str) -> bool:
        return asked(saved, key) or bool(opened(saved, key)) or await self._took(saved, key)

    async def _took(self, saved: CheckpointTuple, key: str) -> bool:
        """Whether a task of a checkpoint has taken the answer to this question."""
        if interrupt_id(key) is None:
            if not takers(saved, key) or takers(saved, key, ran=False):
                return bool(takers(saved, key))
            return not await self._updated(saved)
        return bool(takers(saved)) and bool(takers(saved, key, await self._level(saved)))

    async def stopped_since(self, resumed: CheckpointTuple) -> bool:
        """Whether the run that took the answer in this checkpoint failed or was cut off.

        A run is cut off if it reached neither its end nor its next question.
        """
        with self.looking():
            return await self._stopped_since(resumed)

    async def _stopped_since(self, resumed: CheckpointTuple) -> bool:
        unfinished = (
            await self.running()
            or await self._stopped_tasks()
            or any(_left_standing(level) for level in _levels(await self._snapshot()))
            or await self._answered_not_run()
        )
        if not unfinished or await self.paused():
            return False
        root = _root(resumed)
        if await self._moved_on(root):
            return False
        async for newer in self._checkpoints():
            where = newer.config.get("configurable", {})
            if _root(newer) != root and takers(newer):
                return False  # a later answer was taken; the delivery of that answer continues the thread
            if where.get("checkpoint_ns"):
                continue
            if _id(newer) <= root:
                return _id(newer) == root
        return False

    async def _moved_on(self, root: str) -> bool:
        """Whether new input, an update or a fork came after a checkpoint.

        If so, the current run is not the one that continued from there.
        """
        for source in ("input", "update", "fork"):
            newest = newest_first(self._saver, self._thread_id, "", threaded=self._threaded, source=source, size=1)
            async for page in newest:
                if _id(page[0]) > root:
                    return True
                break
        return False

    async def _answered_not_run(self) -> bool:
        """Whether a node of the current step has the answer to the question it shows, because its run was cut off.

        A node around a subgraph goes on showing the question asked inside it until its own run is stored.
        """
        for level in _levels(await self._snapshot()):
            if (saved := await self._saved(level.config)) and left_over(saved):
                return True
            for task in await self._unhandled(level):
                if task.interrupts and task.result is None and await self._shows_answered(level, task):
                    return True
        return False

    async def _shows_answered(self, level: StateSnapshot, task: PregelTask) -> bool:
        """Whether every interrupt that a task of this level shows has its answer."""
        saved = await self._saved(level.config)
        return saved is not None and all([await self._has_answer(saved, task, shown) for shown in task.interrupts])

    async def _has_answer(self, saved: CheckpointTuple, task: PregelTask, shown: Interrupt) -> bool:
        if not is_ours(shown.value):
            return foreign_answered(saved, task, shown)
        return await self._waiting(shown, shown.value["idempotency_key"]) is None

    async def paused(self) -> bool:
        """Whether the thread waits at a static breakpoint (`interrupt_before`, `interrupt_after`) of its graph."""
        breakpoints = Breakpoints(self._graph)
        if not breakpoints:
            return False
        for level in _levels(await self._snapshot()):
            saved = await self._saved(level.config)
            if saved is None or not breakpoints.may_hold(saved, level):
                continue
            ran_before = (await self._snapshot(level.parent_config)).next if level.parent_config else ()
            if breakpoints.holds(saved, level, ran_before):
                return True
        return False

    # A checkpointer without async methods (for instance SQLite's sync one) implies a graph of sync nodes, which runs in
    # a worker thread.

    async def _snapshot(self, at: RunnableConfig | None = None) -> StateSnapshot:
        """Return the current state of the thread, subgraphs included, or the state at one of its checkpoints."""
        if at is not None:
            return await self._read_snapshot(at, subgraphs=False)
        if self._look is None:
            return await self._read_snapshot(self._config, subgraphs=True)
        if self._look.snapshot is None:
            self._look.snapshot = await self._read_snapshot(self._look.lent(self._config), subgraphs=True)
        return self._look.snapshot

    async def _read_snapshot(self, config: RunnableConfig, *, subgraphs: bool) -> StateSnapshot:
        if not self._threaded:
            try:
                return await self._read_graph.aget_state(config, subgraphs=subgraphs)
            except NotImplementedError:
                self._threaded = True
        return await asyncio.to_thread(self._read_graph.get_state, config, subgraphs=subgraphs)

    async def _level(self, saved: CheckpointTuple) -> StateSnapshot | None:
        """Return a checkpoint as its graph shows it, or None for a graph inside a node that LangGraph does not find."""
        try:
            return await self._snapshot(saved.config)
        except ValueError:
            return None

    async def _checkpoints(self) -> AsyncGenerator[CheckpointTuple]:
        """Yield the checkpoints of the thread, newest first, subgraphs included. The reader may stop early."""
        for graph in namespaces(self._saver, self._thread_id):
            async for page in newest_first(self._saver, self._thread_id, graph, threaded=self._threaded):
                for saved in page:
                    yield saved

    async def _current_step(self) -> AsyncGenerator[CheckpointTuple]:
        """Yield the latest checkpoint of the outermost graph, and all later ones of the graphs inside its tasks."""
        latest = await self._latest("")
        if latest is None:
            return
        yield latest
        for graph in namespaces(self._saver, self._thread_id):
            async for page in newest_first(self._saver, self._thread_id, graph, threaded=self._threaded):
                newer = [saved for saved in page if _id(saved) > _id(latest)]
                for saved in newer:
                    yield saved
                if len(newer) < len(page):
                    break

    async def _saved(self, config: RunnableConfig) -> CheckpointTuple | None:
        look = self._look
        if not self._threaded:
            try:
                return await (look.aread if look else self._saver.aget_tuple)(config)
            except NotImplementedError:
                self._threaded = True
        return await asyncio.to_thread(look.read if look else self._saver.get_tuple, config)

    async def _own(self, saved: CheckpointTuple, key: str | None = None) -> list[Interrupt]:
        """Return the interrupts with this question (default: any of this package) of the nodes at which this graph is.

        The thread may belong to another graph.
        """
        shown = {each.id: each for _, each in questions(saved, key)}  # a node also shows the questions asked inside it
        if not shown:
            return []
        # The place of a question in a subgraph with its own memory contains the node's name instead of the id of the
        # visit.
        visits = {named for task in (await self._snapshot()).tasks for named in (task.id, task.name)}
        return [each for each in shown.values() if asker(each).partition("|")[0].rpartition(":")[2] in visits]

    async def _waiting(self, shown: Interrupt, key: str) -> Waiting | None:
        """Return a question of this package if it has no answer in the last checkpoint of its node, else None."""
        node = asker(shown)
        graph, _, visit = node.rpartition("|")
        while (saved := await self._latest(graph)) is None and graph:
            # the checkpoint of a LangGraph task is that of the graph whose node called it
            graph = graph.rpartition("|")[0]
        task_id = visit.rpartition(":")[2]
        if saved is None or task_id in takers(saved, key) | finished(saved):  # a quorum may end without this answer
            return None
        if task_id not in {writer for writer, _ in questions(saved, key)}:
            return None
        return _waiting_at(saved, shown, node, task_id)

    async def _current(self, saved: CheckpointTuple) -> bool:
        """Whether a checkpoint is still the latest one, in its graph and in those around it."""
        for graph, checkpoint_id in line(saved).items():
            latest = await self._latest(graph)
            if latest is None or _id(latest) != checkpoint_id:
                return False
        return True

    async def _latest(self, graph: str) -> CheckpointTuple | None:
        return await self._saved(_at(self._config, graph))

    async def _run(self, key: str, command: Command[Any] | None, stored: StoredAnswers | None = None) -> Any:
        """Run the thread to its end or its next question, and return the graph's result.

        Args:
            key: The question's idempotency key.
            command: The input of the run.
            stored: The answers in the command that were stored in advance.

        Raises:
            TargetGone: the node does not take this answer, or asks another question now (`QuestionChangedError`).
            GraphFailedError: the graph itself failed, after it had taken the answer.
            Exception: the graph has not taken the answer. A node may fail before it comes to its question again.
        """
        context = await self._context() if self._context is not None else None
        config = _strict(self._config) if stored else self._config
        if self._look is not None:
            self._look.end(stored)
            config, self._look = self._look.lent(config), None
        try:
            if self._events is not None:
                return await self._run_streamed(command, config, context, self._events)
            if self._threaded:
                invoked = asyncio.to_thread(self._graph.invoke, command, config, durability="sync", context=context)
                return await _to_its_end(invoked)
            return await self._graph.ainvoke(command, config, durability="sync", context=context)
        except QuestionChangedError as changed:
            await self._take_back(stored, changed)
            raise TargetGone(str(changed)) from changed
        except asyncio.CancelledError:
            if _cancelled_from_outside():
                raise
            cancelled = RuntimeError("a node was cancelled from within")
            await self._take_back(stored, cancelled)
            await self._blame(key, cancelled, owned=True)
        except Exception as failure:
            if stored is not None and await stored.refused():
                raise
            await self._take_back(stored, failure)
            if is_invalid_resume(failure):
                raise TargetGone(f"the node does not take this answer, and still waits for one: {failure}") from failure
            await self._blame(key, failure)

    async def _run_streamed(
        self, command: Command[Any] | None, config: RunnableConfig, context: Any, events: Events
    ) -> None:
        """Run the thread as `ainvoke` does, which streams as well, and emit the stream parts as events."""
        options: Any = {
            "stream_mode": events.modes,
            "subgraphs": True,
            "durability": "sync",
            "context": context,
        }
        thread_id = self._thread_id
        if not self._threaded:
            async with aclosing(cast("AsyncGenerator[Any]", self._graph.astream(command, config, **options))) as stream:
                async for namespace, mode, data in stream:
                    await events.emit(GraphEvent(self.name, thread_id, mode, data, tuple(namespace)))
            return
        loop = asyncio.get_running_loop()

        def stream_all() -> None:
            for namespace, mode, data in self._graph.stream(command, config, **options):
                event = GraphEvent(self.name, thread_id, mode, data, tuple(namespace))
                asyncio.run_coroutine_threadsafe(events.emit(event), loop).result()

        await _to_its_end(asyncio.to_thread(stream_all))

    async def _take_back(self, stored: StoredAnswers | None, failure: Exception) -> None:
        """Remove stored answers that no node has taken, so that they are delivered again."""
        if stored is None:
            return
        refused = isinstance(failure, UnknownInterruptError) or is_invalid_resume(failure)
        for each in stored.not_written() if refused else stored.not_taken():
            await self._put(each.config, each.writes(), each.task_id)

    def _ended(self, result: Any) -> bool:
        """Whether the result of a run proves that it met no question, and so has ended."""
        if not isinstance(result, dict) or INTERRUPT in result:
            return False
        asking = [tags for name, tags in node_tags(self._graph).items() if name != START]  # START is always hidden
        tagged = [self._config.get("tags"), bound_config(self._graph).get("tags"), *asking]
        tags = chain.from_iterable(each or () for each in tagged)
        return TAG_HIDDEN not in tags  # the questions of a hidden node are not part of the result

    async def _blame(self, key: str, failure: Exception, *, owned: bool = False) -> None:
        """Raise `GraphFailedError` if the graph itself failed after it had the answer, or else the failure unchanged.

        In the other cases the answer is untaken or the run is unfinished.

        Args:
            key: The question's idempotency key.
            failure: The exception that the run raised.
            owned: Whether the failure is known to be the graph's own.

        Raises:
            GraphFailedError: the graph failed after it had taken the answer.
            Exception: `failure`, in all other cases.
        """
        resumed, _ = await self.history(key)
        if resumed is None or await self.pending(key) or not (owned or await self._owns(failure)):
            raise failure
        where = self._config.get("configurable", {}).get("thread_id")
        logger.error("graph %s failed after thread %s had taken the answer", self.name, where, exc_info=failure)
        told = await self.failures() or f"the graph failed ({failure!r})"
        raise GraphFailedError(told, failure) from failure

    async def _owns(self, failure: Exception) -> bool:
        """Whether the graph itself failed, and not the checkpointer.

        Either the thread has recorded the failure, or the graph has exceeded a limit of its own or made an invalid
        update.
        """
        return isinstance(failure, GraphRecursionError | InvalidUpdateError) or bool(await self.failures())

    def _asks(self, shown: Interrupt, key: str) -> bool:
        """Whether this interrupt asks the question with this key."""
        return names_key(shown.value, key) if is_ours(shown.value) else key in keys_of(shown, self._thread_id)

    @property
    def _thread_id(self) -> str:
        return str(self._config.get("configurable", {})["thread_id"])

    @property
    def _saver(self) -> BaseCheckpointSaver[Any]:
        saver = self._graph.checkpointer
        if not isinstance(saver, BaseCheckpointSaver):  # checked when the engine was built
            raise TypeError("the graph has no checkpointer")
        return saver


async def _to_its_end(in_thread: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a worker thread, even if the wait is cancelled: the thread's work cannot be cancelled."""
    running = asyncio.ensure_future(in_thread)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _strict(config: RunnableConfig) -> RunnableConfig:
    """Make a resume fail if its interrupt has disappeared since the thread was read.

    Older LangGraph releases ignore this.
    """
    return {**config, "configurable": {**config.get("configurable", {}), STRICT_RESUME: True}}


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _waiting_at(saved: CheckpointTuple, shown: Interrupt, place: str, task_id: str) -> Waiting:
    return Waiting(shown, saved.config, task_id, tuple(given(saved, task_id)), tuple(ids(place)))


def _at(thread: RunnableConfig, graph: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """Return the config that reads a checkpoint of a graph. Without an id it reads the latest."""
    place = {**thread.get("configurable", {}), "checkpoint_ns": graph}
    return {"configurable": place if checkpoint_id is None else {**place, "checkpoint_id": checkpoint_id}}


def _id(saved: CheckpointTuple) -> str:
    return str(saved.config.get("configurable", {})["checkpoint_id"])


def _root(saved: CheckpointTuple) -> str:
    """Return the id of the checkpoint of the outermost graph around this one."""
    return parents_of(saved).get("") or _id(saved)


def _namespace(saved: CheckpointTuple) -> str:
    return str(saved.config.get("configurable", {}).get("checkpoint_ns", ""))


def _levels(snapshot: StateSnapshot) -> Iterator[StateSnapshot]:
    """Yield the thread's current state and that of each active subgraph."""
    yield snapshot
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _levels(task.state)


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
    return ", ".join(f"node {task.name!r} failed ({task.error})" for task in failed)


def _left_standing(snapshot: StateSnapshot) -> bool:
    """Whether every task of the step is done but the step was not applied.

    This happens if two runs were active at once and each left the step to the other.
    """
    return bool(snapshot.tasks) and all(task.result is not None for task in snapshot.tasks)


def _answer(shown: Interrupt, outcome: Outcome) -> Any:
    """Return the value with which an interrupt is resumed."""
    return outcome.value() if is_ours(shown.value) else resume_with(shown, outcome)
