"""Passes the stream of a thread that the relay runs to an application's user interface."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langgraph.types import StreamMode

from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import run_on
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")

MODES: Sequence[StreamMode] = ("updates", "messages", "custom")
"""Stream modes used by default."""


@dataclass(frozen=True, slots=True)
class GraphEvent:
    """One part of the stream of a thread that runs after an answer."""

    graph: str
    """Name of the graph in the engine's `graphs`."""
    thread_id: str
    """Id of the thread."""
    mode: StreamMode
    """LangGraph's stream mode of this part: `updates`, `messages`, `custom`, ..."""
    data: Any
    """The data that LangGraph streams in this mode."""
    namespace: tuple[str, ...] = ()
    """The subgraph that streamed it, as LangGraph names it. Empty for the graph itself."""


OnEvent = Callable[[GraphEvent], Awaitable[None]]


class Events:
    """Calls an application's function with each event. A failure of that function does not disturb the graph.

    Args:
        on_event: The function.
        modes: LangGraph's stream modes whose parts it receives.
        caller: The event loop on which it is called. Default: the one that runs the graph.
    """

    def __init__(
        self, on_event: OnEvent, modes: Sequence[StreamMode], caller: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._on_event = on_event
        self._caller = caller
        self.modes: list[StreamMode] = [cast("StreamMode", modes)] if isinstance(modes, str) else list(modes)

    def on(self, caller: asyncio.AbstractEventLoop) -> "Events":
        """Return a copy that calls the function on this event loop."""
        return Events(self._on_event, self.modes, caller)

    async def emit(self, event: GraphEvent) -> None:
        """Pass one event on. The graph waits for it. An exception is only logged, because the graph may have acted."""
        try:
            await run_on(self._caller or asyncio.get_running_loop(), self._call(event))
        except Exception:
            logger.exception("GraphEngine(on_event=...) failed for thread %s; the graph continues", event.thread_id)

    async def _call(self, event: GraphEvent) -> None:
        await self._on_event(event)
