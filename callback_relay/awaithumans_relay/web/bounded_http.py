"""HTTP for a relay that serves itself, with limits on the size, duration and number of connections.

Law: strangers compete with strangers. A connection on which no complete request has arrived costs little and ends at a
deadline. If there are too many connections, the one that has waited longest for the rest of its request is closed. So a
flood pushes out its own connections, and a caller that sends its request at once is answered. Connections with a proven
sender are closed last. Those whose request is complete and being answered are kept.

uvicorn limits neither the time of a request nor, with httptools, the size of its headers. Its `limit_concurrency`
answers 503 to all callers. So this uses h11, whose buffer is limited, with deadlines.
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
"""Maximum bytes of a request line with its headers: a route token of 4 KB, and what proxies add."""
READ_BYTES = 64 * 1024
"""Maximum bytes read from one connection at a time.

Asyncio's default is 256 KB, and data that was read is held several times over until it is parsed.
"""
MAX_CONNECTIONS = 512
"""Maximum number of open connections. The awaithumans server uses one, and callers one per registration under way."""
HEADERS_SECONDS = 10.0
"""Seconds from the connection, or from the end of the last response, to the end of the headers."""
BODY_SECONDS = 30.0
"""Seconds from the end of the headers to the end of the body."""
ANSWER_SECONDS = 60.0
"""Seconds from the end of the body until the caller has received the response."""

_DEADLINES: dict[object, float] = {h11.IDLE: HEADERS_SECONDS, h11.SEND_BODY: BODY_SECONDS}
"""Deadlines in seconds, by the phase that the caller is in."""


class BoundedProtocol(H11Protocol):
    """One connection with limits and deadlines."""

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
        """When the current phase of the caller began."""
        self.proven: bool | None = None
        """Whether the current request was proven. None: not known yet. It is reset when the request ends."""
        self._phase: Any = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        """Close the connection that has waited longest for its request, if there are too many now."""
        super().connection_made(transport)
        with suppress(AttributeError):  # uvloop, which reads as little by default
            transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        self._start_phase(h11.IDLE)
        if len(self.connections) > MAX_CONNECTIONS:
            open_here = [each for each in self.connections if isinstance(each, BoundedProtocol)]
            min((each for each in open_here if each.expendable), key=_rank, default=self).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline of the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle the data that has arrived, and give the scope of a new request a way to report to its connection."""
        super().handle_events()
        if self.scope is not None:  # pyright: ignore[reportUnnecessaryComparison] - None until the first request
            cast("Scope", self.scope).setdefault(JUDGE, self.judge)
        if self.conn.their_state is not self._phase:
            self._start_phase(self.conn.their_state)

    def on_response_complete(self) -> None:
        """Start the deadline for the caller's next request."""
        self.proven = None
        self._start_phase(self.conn.their_state)
        super().on_response_complete()

    def judge(self, proven: bool) -> None:  # noqa: FBT001 - the only argument of a callback
        """Note whether the current request has been proven."""
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

    def _start_phase(self, phase: object) -> None:
        self._phase, self.since = phase, self.loop.time()
        self._stop_clock()
        self._deadline = self.loop.call_later(_DEADLINES.get(phase, ANSWER_SECONDS), self.cut)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _rank(connection: BoundedProtocol) -> tuple[bool, float]:
    """Return the sort key for closing: unproven connections first, and among them the one that has waited longest."""
    return connection.proven is True, connection.since


OPTIONS: dict[str, Any] = {
    "http": BoundedProtocol,
    "ws": "none",  # an upgraded connection would have none of these limits
}
"""Options of `uvicorn.Config`."""
