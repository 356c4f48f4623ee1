"""What happens in a thread while the relay runs it on, for an application's user interface."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.types import StreamMode

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
    """Gives events to an application's function, whose failures do not disturb the graph."""

    def __init__(self, on_event: OnEvent, modes: Sequence[StreamMode]) -> None:
        self._on_event = on_event
        self.modes = [modes] if isinstance(modes, str) else list(modes)

    async def emit(self, event: GraphEvent) -> None:
        """Pass one on. The graph waits for it; an exception is logged, because the graph may have acted."""
        try:
            await self._on_event(event)
        except Exception:
            logger.exception("GraphEngine(on_event=...) failed for thread %s; the graph runs on", event.thread_id)
