"""The relay's side: an outcome resumes the interrupt that asked.

The question's key tells four states of a thread apart: its interrupt is pending (resume it), it was resumed before
(delivered; go on where a crash or an error stopped), it is nowhere yet (the answer beat the checkpoint; later), or the
thread has moved on without it (superseded; park). Looking first is what makes delivering twice, too early or to a
finished thread harmless.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from awaithumans_adapters.langgraph.names import ENGINE
from awaithumans_adapters.langgraph.thread import Graph, Thread
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

RUNNING_SECONDS = 10 * 60.0
"""A node that runs beside the question is waited for this long, by this process's own clock.

Then it counts as cut off, and the thread is resumed, which runs it again.
"""


NOT_YET_SECONDS = 1.0
"""A checkpoint follows the creation of the task within moments."""


class GraphEngine:
    """Resumes threads of graphs that live in the relay's process.

    Args:
        graphs: Compiled graphs by name, each with a checkpointer that outlives the process. The thread is found by its
            question's key, so names are for people.
        config: Builds the config a thread is resumed with, from graph name and thread id, for graphs that read more
            than `thread_id` from it.

    Raises:
        SettingsError: a graph has no checkpointer.
    """

    name = ENGINE

    def __init__(
        self, graphs: Mapping[str, Graph], *, config: Callable[[str, str], RunnableConfig] | None = None
    ) -> None:
        for name, graph in graphs.items():
            if not isinstance(graph.checkpointer, BaseCheckpointSaver):
                raise SettingsError(f"graph {name!r} has no checkpointer, so no thread of it can be resumed")
        self._graphs = dict(graphs)
        self._config = config or _thread_config
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._busy_since: dict[str, float] = {}

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and run it to its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer, or nobody can tell whose thread it is.
            TargetNotReady: the thread does not show the question yet, or runs just now.
            Exception: the thread has not taken the answer, or was cut off after it had; the next delivery goes on from
                there. An error a node raised after that is not raised here: the thread has recorded it, and running a
                node again that may have acted is not ours to decide.
        """
        thread_id = route.target["thread_id"]
        lock = self._locks.setdefault(thread_id, asyncio.Lock())
        async with lock:  # the library has no lock on a thread: two resumes at once would both run the rest
            try:
                await self._deliver(thread_id, route, outcome)
            except TargetNotReady:
                raise
            except BaseException:
                self._busy_since.pop(route.digest, None)
                raise
            self._busy_since.pop(route.digest, None)

    async def _deliver(self, thread_id: str, route: Route, outcome: Outcome) -> None:
        key = route.idempotency_key
        threads = [Thread(name, graph, self._config(name, thread_id)) for name, graph in self._graphs.items()]
        if await self._resume(threads, route, outcome):
            return
        for thread in threads:
            resumed, asked = await thread.history(key)
            if resumed is not None:
                await self._go_on(threads, resumed, key)
                return
            if asked:
                # The interrupt may have been saved between the two looks.
                if await self._resume(threads, route, outcome):
                    return
                raise TargetGone("the thread has moved on: new input or a fork has replaced the question this answers")
        raise TargetNotReady(
            f"no thread {thread_id!r} with this question in {', '.join(self._graphs)} yet; "
            "do the relay and the asker share the checkpointer?",
            retry_after=NOT_YET_SECONDS,
        )

    async def _resume(self, threads: list["Thread"], route: Route, outcome: Outcome) -> bool:
        """Resume the thread if it shows the question."""
        showing = [thread for thread in threads if await thread.pending(route.idempotency_key)]
        if not showing:
            return False
        thread = _only(showing)
        if (busy := await thread.running()) and self._may_still_run(route):
            raise TargetNotReady(
                f"{', '.join(busy)} still runs beside the question; resuming now would run it twice",
                retry_after=NOT_YET_SECONDS,
            )
        await thread.resume(route.idempotency_key, outcome)
        return True

    async def _go_on(self, threads: list["Thread"], resumed: CheckpointTuple, key: str) -> None:
        """Finish the run that a crash cut off after the thread had taken the answer; nothing if it was not cut off."""
        stopped = [thread for thread in threads if await thread.cut_off_since(resumed)]
        if stopped:
            await _only(stopped).go_on(key)

    def _may_still_run(self, route: Route) -> bool:
        """Whether what stands beside the question without a result may still be running, and not just be cut off."""
        since = self._busy_since.setdefault(route.digest, time.monotonic())
        return time.monotonic() - since < RUNNING_SECONDS


def _thread_config(_: str, thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def _only(threads: list[Thread]) -> Thread:
    if len(threads) > 1:
        names = ", ".join(thread.name for thread in threads)
        raise TargetGone(
            f"the graphs {names} share a checkpointer and a node name, so nobody can tell whose thread this is: "
            "give them different node names, or relays of their own, and redrive"
        )
    return threads[0]
