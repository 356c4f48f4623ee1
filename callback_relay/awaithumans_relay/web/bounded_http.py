"""HTTP for a relay that serves itself: what a connection may hold, how long it may take, and how many there are.

Law: strangers compete with strangers. A connection on which no complete request has arrived costs little and ends at a
deadline. If there are too many connections, the one that has waited longest for the rest of its request is closed, so
that a flood pushes out its own connections: a caller that sends its request at once is answered. Those that have
proven who sends are closed last, and those whose request is complete and being answered are kept.

uvicorn limits neither the time of a request nor, with httptools, the size of its headers; `limit_concurrency` answers
503 to everybody. So this is h11, whose buffer is limited, with deadlines.
"""

import asyncio
from contextlib import suppress
from typing import Any, cast

import h11
from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from awaithumans_relay.web.caller_trust import JUDGE

MAX_HEADER_BYTES = 32 * 1024
"""Of a request line with its headers: a route token of 4 KB, and what proxies add."""
READ_BYTES = 64 * 1024
"""Of one connection at a time, for asyncio's 256 KB: what is read is held several times over until it is parsed."""
MAX_CONNECTIONS = 512
"""Open at the same time. The awaithumans server uses one, and callers one for each registration under way."""
HEADERS_SECONDS = 10.0
"""From the connection, or from the end of the last response, to the end of the headers."""
BODY_SECONDS = 30.0
"""From there to the end of the body."""
ANSWER_SECONDS = 60.0
"""From there until the caller has received the response."""

_DEADLINES: dict[object, float] = {h11.IDLE: HEADERS_SECONDS, h11.SEND_BODY: BODY_SECONDS}
"""By what the caller is doing."""


class BoundedProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self.since = self.loop.time()
        """When the phase began that the caller is in."""
        self.proven: bool | None = None
        """Whether the request was proven; None while nothing is known. It ends with the request."""
        self._phase: Any = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        """Close the connection that has waited longest for its request, if there are too many now."""
        super().connection_made(transport)
        with suppress(AttributeError):  # uvloop, which reads as little by itself
            transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        self._enter(h11.IDLE)
        if len(self.connections) > MAX_CONNECTIONS:
            open_here = [each for each in self.connections if isinstance(each, BoundedProtocol)]
            min((each for each in open_here if each.expendable), key=_rank, default=self).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle what has arrived. A request that has begun knows its connection."""
        super().handle_events()
        if self.scope is not None:  # pyright: ignore[reportUnnecessaryComparison]  # until the first request
            cast("Scope", self.scope).setdefault(JUDGE, self.judge)
        if self.conn.their_state is not self._phase:
            self._enter(self.conn.their_state)

    def on_response_complete(self) -> None:
        """The caller may send its next request, within its time."""
        self.proven = None
        self._enter(self.conn.their_state)
        super().on_response_complete()

    def judge(self, proven: bool) -> None:  # noqa: FBT001 - the only argument of a callback
        """Note whether the request under way has been proven."""
        self.proven = proven

    @property
    def expendable(self) -> bool:
        """Whether closing it loses no request that is complete and being answered."""
        waits_for_caller = self._phase in _DEADLINES or self.flow.write_paused or self.transport.is_closing()
        return waits_for_caller or self.proven is False

    def cut(self) -> None:
        """Close the connection at once, without waiting until the caller has read what was sent."""
        self._stop_clock()
        self.connections.discard(self)
        self.transport.abort()

    def _enter(self, phase: object) -> None:
        self._phase, self.since = phase, self.loop.time()
        self._stop_clock()
        self._deadline = self.loop.call_later(_DEADLINES.get(phase, ANSWER_SECONDS), self.cut)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _rank(connection: BoundedProtocol) -> tuple[bool, float]:
    """Closed first: of those that have proven nothing, the one that has waited longest."""
    return connection.proven is True, connection.since


OPTIONS: dict[str, Any] = {
    "http": BoundedProtocol,
    "ws": "none",  # an upgraded connection would have none of these limits
}
"""Of `uvicorn.Config`."""
