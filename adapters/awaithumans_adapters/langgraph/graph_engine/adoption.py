"""Asks about interrupts that have no task: selects the threads to read, and the handler that creates the tasks.

Law: every interrupt at which a run of such a graph pauses becomes a task. LangGraph calls a graph's callbacks only at
the end of a run, so interrupts are also searched for in the stored checkpoints. The key is made from the interrupt
itself, so the callback and any number of relays create one task.
"""

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Interrupt, StateSnapshot

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import foreign_answered, interrupts
from awaithumans_adapters.langgraph.graph_engine.graphs import Graphs
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread
from awaithumans_adapters.langgraph.internals import bound_config, threads_in_memory
from awaithumans_adapters.langgraph.names import GRAPH, is_ours
from awaithumans_adapters.langgraph.unmodified.human_interrupts import HumanInterrupts
from awaithumans_core.errors import SettingsError
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")

MAX_LISTED = 200
"""Number of checkpoints of one checkpointer that are read in one round, the newest first."""
MAX_TOUCHED = 1000
"""Maximum number of threads that are remembered for the next round. The oldest are dropped."""


class Adoption:
    """Creates tasks for stored interrupts that have none, and remembers which threads to read in the next round.

    Args:
        graphs: The engine's graphs. Those with `HumanInterrupts` among their callbacks take part.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._touched: dict[str, None] = {}
        self._reported: dict[str, str] = {}

    async def adopt(self) -> int:
        """Ask about the interrupts of the threads to read now. Return the number of questions; see `GraphEngine`."""
        asked = 0
        savers = [self._graphs.thread(name, "adoption").saver for name in self._handlers("adoption")]
        for thread_id in await self.candidates(savers):
            asked += await self._adopt_logged(thread_id)
        return asked

    async def adopt_delivered(self, thread_id: str) -> None:
        """Ask about the interrupts at which a thread waits after a delivery, if a graph takes part."""
        if self._handlers(thread_id):
            await self._adopt_logged(thread_id)

    async def _adopt_logged(self, thread_id: str) -> int:
        """Ask about the interrupts of a thread. A failure is logged, and the next round tries again."""
        try:
            return await self.adopt_thread(thread_id)
        except Exception as failed:
            self.failed(thread_id, failed)
            return 0

    async def adopt_thread(self, thread_id: str) -> int:
        """Ask about the interrupts of a thread. Return the number of questions.

        Raises:
            SettingsError: no graph takes part.
            AwaitHumansError: a question was refused, or server or relay are unreachable.
        """
        handlers = self._handlers(thread_id)
        if not handlers:
            raise SettingsError(
                f"none of the graphs {self._graphs} has HumanInterrupts among its callbacks: give the "
                "engine graph.with_config(callbacks=[HumanInterrupts(...)])"
            )
        asked = 0
        for name, handler in handlers.items():
            shown, metadata = await _unasked(self._graphs.thread(name, thread_id))
            target = {"thread_id": thread_id, **({GRAPH: str(metadata[GRAPH])} if metadata.get(GRAPH) else {})}
            if target.get(GRAPH, name) != name and target[GRAPH] in self._graphs:
                continue  # a thread of another graph, whose node has the same name
            asked += sum([await handler.adopt(each, target) for each in shown])
        return asked

    def _handlers(self, thread_id: str) -> dict[str, HumanInterrupts]:
        """Return the `HumanInterrupts` of each graph that has one, by graph name."""
        threads = [self._graphs.thread(name, thread_id) for name in self._graphs]
        found = {thread.name: handler_of(thread.graph, thread.config) for thread in threads}
        return {name: handler for name, handler in found.items() if handler is not None}

    def touched(self, thread_id: str) -> None:
        """Make the next round read this thread, however old its last checkpoint is."""
        self._touched.pop(thread_id, None)
        self._touched[thread_id] = None
        if len(self._touched) > MAX_TOUCHED:
            del self._touched[next(iter(self._touched))]

    def failed(self, thread_id: str, failure: Exception) -> None:
        """Record that asking about a thread's interrupts failed.

        Log a new reason, and read the thread again next round.
        """
        self.touched(thread_id)
        reason = f"{type(failure).__name__}: {failure}"
        if self._reported.get(thread_id) != reason:
            logger.warning("thread %s waits at an interrupt that has no task yet: %s", thread_id, reason)
        self._reported[thread_id] = reason
        if len(self._reported) > MAX_TOUCHED:
            del self._reported[next(iter(self._reported))]

    async def candidates(self, savers: Sequence[BaseCheckpointSaver[Any]]) -> list[str]:
        """Return the threads to read now: the touched ones, and those whose latest checkpoints hold an interrupt."""
        if not savers:
            self._touched.clear()
            return []
        taken, self._touched = self._touched, {}
        by_identity = {id(saver): saver for saver in savers}
        try:
            for saver in by_identity.values():
                taken |= dict.fromkeys(_waiting(await _latest(saver)))
        except BaseException:
            self._touched = taken | self._touched
            raise
        return list(taken)


def handler_of(graph: Any, config: RunnableConfig) -> HumanInterrupts | None:
    """Return the `HumanInterrupts` among the callbacks of a graph, or of the config with which it is resumed."""
    for callbacks in (config.get("callbacks"), bound_config(graph).get("callbacks")):
        handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or []
        for handler in handlers:
            if isinstance(handler, HumanInterrupts):
                return handler
    return None


async def _unasked(thread: StoredThread) -> tuple[list[Interrupt], Mapping[str, Any]]:
    """Return the waiting interrupts of nodes that do not know this package, and the metadata of the thread."""
    waiting: dict[str, Interrupt] = {}
    for level in await thread.levels():
        shown = [
            (task, each)
            for task in level.tasks
            if not isinstance(task.state, StateSnapshot)
            for each in task.interrupts
            if not is_ours(each.value)
        ]
        if shown and (saved := await thread.checkpoint(level.config)) is not None:
            waiting |= {each.id: each for task, each in shown if not foreign_answered(saved, task, each)}
    return list(waiting.values()), cast("Mapping[str, Any]", (await thread.state()).metadata or {})


def _waiting(latest: Sequence[CheckpointTuple]) -> Iterator[str]:
    """Yield the threads whose newest checkpoint holds an interrupt of a node that does not know this package."""
    seen: set[tuple[str, str]] = set()
    for saved in latest:
        where = saved.config.get("configurable", {})
        graph = (where["thread_id"], where.get("checkpoint_ns", ""))
        if graph in seen:
            continue
        seen.add(graph)
        if any(not is_ours(each.value) for each in interrupts(saved)):
            yield graph[0]


async def _latest(saver: BaseCheckpointSaver[Any]) -> list[CheckpointTuple]:
    """Return the newest checkpoints of a checkpointer, newest first."""
    if isinstance(saver, InMemorySaver):  # it lists one thread after the other
        newest = itertools.islice(reversed(list(threads_in_memory(saver))), MAX_LISTED)
        each = [saver.get_tuple({"configurable": {"thread_id": thread_id}}) for thread_id in newest]
        return [saved for saved in each if saved is not None]
    try:
        return [saved async for saved in saver.alist(None, limit=MAX_LISTED)]
    except NotImplementedError:
        return await asyncio.to_thread(lambda: list(saver.list(None, limit=MAX_LISTED)))
