"""What happens in a thread while the relay runs it on, for an application's user interface."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langgraph.types import StreamMode

from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import run_on
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")

MODES: Sequence[StreamMode] = ("updates", "messages", "custom")
"""What is streamed by default."""


@dataclass(frozen=True, slots=True)
class GraphEvent:
    """One part of the stream of a thread that runs on after an answer."""

    graph: str
    """Name of the graph, as the engine was given it."""
    thread_id: str
    """The thread."""
    mode: StreamMode
    """Which stream it is of, in LangGraph's words: `updates`, `messages`, `custom`, ..."""
    data: Any
    """What LangGraph streams in this mode."""
    namespace: tuple[str, ...] = ()
    """The subgraph it is of, as LangGraph names it; empty for the graph itself."""


OnEvent = Callable[[GraphEvent], Awaitable[None]]


class Events:
    """Gives events to an application's function, whose failures do not disturb the graph.

    Args:
        on_event: The function.
        modes: What it is called with, in LangGraph's words.
        caller: The event loop on which it is called. Default: the one that runs the graph.
    """

    def __init__(
        self, on_event: OnEvent, modes: Sequence[StreamMode], caller: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._on_event = on_event
        self._caller = caller
        self.modes: list[StreamMode] = [cast("StreamMode", modes)] if isinstance(modes, str) else list(modes)

    def on(self, caller: asyncio.AbstractEventLoop) -> "Events":
        """The same, with the function called on this event loop."""
        return Events(self._on_event, self.modes, caller)

    async def emit(self, event: GraphEvent) -> None:
        """Pass one on. The graph waits for it; an exception is logged, because the graph may have acted."""
        try:
            await run_on(self._caller or asyncio.get_running_loop(), self._call(event))
        except Exception:
            logger.exception("GraphEngine(on_event=...) failed for thread %s; the graph runs on", event.thread_id)

    async def _call(self, event: GraphEvent) -> None:
        await self._on_event(event)
