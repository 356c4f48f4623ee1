"""Selects the threads to read for interrupts without a task, and the handler that asks about them.

Law: every interrupt at which a run of such a graph pauses becomes a task. LangGraph calls a graph's callbacks only at
the end of a run, so interrupts are also searched for in the stored checkpoints. The key is made from the interrupt
itself, so the callback and any number of relays create one task.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import interrupts
from awaithumans_adapters.langgraph.internals import bound_config, threads_in_memory
from awaithumans_adapters.langgraph.names import is_ours
from awaithumans_adapters.langgraph.unmodified.human_interrupts import HumanInterrupts
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")

LATEST = 200
"""Number of checkpoints of one checkpointer that are read in one round, the newest first."""
MAX_TOUCHED = 1000
"""Maximum number of threads that are remembered for the next round. The oldest are dropped."""


class Adoption:
    """Selects the threads to read in the next round."""

    def __init__(self) -> None:
        self._touched: dict[str, None] = {}
        self._reported: dict[str, str] = {}

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


def _waiting(latest: Sequence[CheckpointTuple]) -> Iterator[str]:
    """Yield the threads whose newest checkpoint holds an interrupt of a node that does not know this package."""
    seen: set[tuple[str, str]] = set()
    for saved in latest:
        place = saved.config.get("configurable", {})
        graph = (place["thread_id"], place.get("checkpoint_ns", ""))
        if graph in seen:
            continue
        seen.add(graph)
        if any(not is_ours(each.value) for each in interrupts(saved)):
            yield graph[0]


async def _latest(saver: BaseCheckpointSaver[Any]) -> list[CheckpointTuple]:
    """Return the newest checkpoints of a checkpointer, newest first."""
    if isinstance(saver, InMemorySaver):  # it lists one thread after the other
        newest = itertools.islice(reversed(list(threads_in_memory(saver))), LATEST)
        each = [saver.get_tuple({"configurable": {"thread_id": thread_id}}) for thread_id in newest]
        return [saved for saved in each if saved is not None]
    try:
        return [saved async for saved in saver.alist(None, limit=LATEST)]
    except NotImplementedError:
        return await asyncio.to_thread(lambda: list(saver.list(None, limit=LATEST)))
