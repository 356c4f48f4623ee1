"""Transports to a `FakeHumans`, in process or over a socket, and the faults on the way."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from awaithumans_core.clock import Clock, steady
from awaithumans_core.testing.clock import VirtualClock
from awaithumans_core.testing.faults import Fault

BufferedReply = tuple[Message, bytes]
"""The start of a reply, with its status and headers, and its body."""

HALF_A_REPLY = b'{"status": "compl'

_patience: ContextVar[float | None] = ContextVar("patience", default=None)
"""Read timeout of the client in seconds, which the in-process transport has to enforce. None: over a socket."""


class ServerHooks(Protocol):
    """What the middleware needs of the server behind it."""

    clock: Clock

    def fault_for(self, method: str, path: str, body: bytes) -> Fault | None:
        """Return the fault that happens to this request, if any."""
        ...

    def request_in_progress(self, method: str, path: str) -> AbstractContextManager[None]:
        """Context manager around the handling of a request, within which virtual time does not move."""
        ...


class _ConnectionEndedError(Exception):
    """Raised to end the connection, as this error of httpx."""

    def __init__(self, kind: Callable[..., httpx.TransportError], why: str) -> None:
        super().__init__(why)
        self.kind = kind


class _HeldReply:
    """A reply that is held until there is another one to swap it with."""

    def __init__(self, own: BufferedReply) -> None:
        self.own = own
        self.other: BufferedReply | None = None
        self.swapped = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def swap(self, other: BufferedReply) -> BufferedReply:
        """Return this reply and store the other one in its place. It may be called from any event loop."""
        self.other = other
        with suppress(RuntimeError):  # the loop of the first request has ended meanwhile
            self._loop.call_soon_threadsafe(self.swapped.set)
        return self.own


class FaultMiddleware:
    """ASGI middleware that injects the faults of requests and replies."""

    def __init__(self, app: ASGIApp, hooks: ServerHooks) -> None:
        self._app = app
        self._hooks = hooks
        self._held: _HeldReply | None = None
        self._swapping = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._hooks.request_in_progress(scope["method"], scope["path"]):
            body = await _body(receive)
            fault = self._hooks.fault_for(scope["method"], scope["path"], body)
            receive = _replay_body(body, receive)
            if fault is None:
                await self._app(scope, receive, send)
            else:
                await self._apply_fault(fault, scope, receive, send)

    async def _apply_fault(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.breaks in {"refused", "reset"}:
            await self._break(fault, scope, send)
        if not fault.swaps:
            await self._delay(fault)
        if fault.reply is not None:
            status, body, headers = fault.reply
            await _respond(send, status, [(name.encode(), value.encode()) for name, value in headers.items()], body)
            return
        start, body = await self._buffered_reply(scope, receive)
        if fault.breaks is not None:
            await self._break(fault, scope, send)
        if fault.change is not None:
            body = fault.change(body)
        if fault.swaps:
            start, body = await self._swap_reply((start, body), fault.seconds)
        kept = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        await _respond(send, start["status"], kept, body)

    async def _delay(self, fault: Fault) -> None:
        patience = _patience.get()
        if not fault.seconds:
            return
        if patience is None:
            await asyncio.sleep(fault.seconds)
            return
        clock = self._hooks.clock
        if isinstance(clock, VirtualClock):
            with clock.idle():
                await clock.alarm(min(fault.seconds, patience))
        else:
            await clock.sleep(min(fault.seconds, patience))
        if fault.seconds > patience:
            raise _ConnectionEndedError(httpx.ReadTimeout, fault.name)

    async def _swap_reply(self, own: BufferedReply, seconds: float) -> BufferedReply:
        """Return the reply of another request, or the own one if there is no other in time."""
        with self._swapping:
            first, self._held = self._held, None
            if first is not None:
                return first.swap(own)
            held = self._held = _HeldReply(own)
        try:
            await self._wait_until(held.swapped, seconds)
        finally:
            with self._swapping:
                if self._held is held:
                    self._held = None
        return held.other or own

    async def _wait_until(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event, or until this number of seconds has passed on the fake's clock."""
        clock = self._hooks.clock
        if isinstance(clock, VirtualClock):
            with clock.idle():
                await _first(event.wait(), clock.alarm(seconds))
        else:
            await _first(event.wait(), clock.sleep(seconds))

    async def _buffered_reply(self, scope: Scope, receive: Receive) -> BufferedReply:
        """Return the complete reply of the server without sending it."""
        start: Message = {}
        parts: list[bytes] = []

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, keep)
        return start, b"".join(parts)

    async def _break(self, fault: Fault, scope: Scope, send: Send) -> None:
        connection = TrackedConnection.connection(scope)
        if connection is not None:
            if fault.breaks != "refused":
                headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": HALF_A_REPLY, "more_body": True})
            _reset(connection)
        raise _ConnectionEndedError(httpx.ConnectError if fault.breaks == "refused" else httpx.ReadError, fault.name)


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until the first of these has ended, and cancel the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _body(receive: Receive) -> bytes:
    """Read the whole request body, since the fault may depend on the question."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` for the app that begins with the body that was read already."""
    replayed = False

    async def receive_again() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


class InProcessTransport(httpx.AsyncBaseTransport):
    """Sends requests without a socket, with the errors and the read timeout of a socket."""

    def __init__(self, app: ASGIApp, enter: Callable[["asyncio.Task[httpx.Response]"], None]) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self._enter = enter
        """Called with every request in progress, since the fake cancels them when it is closed."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the app and return its reply."""
        waits: float | None = request.extensions.get("timeout", {}).get("read")
        kept = _patience.set(float("inf") if waits is None else waits)
        try:
            handling = asyncio.create_task(self._inner.handle_async_request(request))
        finally:
            _patience.reset(kept)
        try:
            self._enter(handling)
            await asyncio.wait({handling})
        finally:
            handling.cancel()
        if handling.cancelled():
            raise httpx.ReadError("FakeHumans was closed (FakeHumans)", request=request)
        try:
            return handling.result()
        except _ConnectionEndedError as broken:
            raise broken.kind(f"{broken} (FakeHumans)", request=request) from None


class TrackedConnection(H11Protocol):
    """uvicorn's HTTP protocol, which tracks each connection so that a fault can reset it, and sends without delay.

    asyncio sets TCP_NODELAY only on sockets whose protocol number is IPPROTO_TCP, which `socket.create_server` does not
    set; uvloop sets it always. Without it the body of a reply waits up to 40 ms for the client's delayed ACK, and
    virtual time jumps before the client has the reply.
    """

    _open: ClassVar[dict[tuple[object, object], asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Track the connection of a new client."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[self.client, self.server] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that was closed."""
        self._open.pop((self.client, self.server), None)
        super().connection_lost(exc)

    @classmethod
    def connection(cls, scope: Scope) -> asyncio.Transport | None:
        """Return the connection of a request, or None if it did not come over a socket."""
        return cls._open.get((scope.get("client"), scope.get("server")))


class MonotonicLoop(asyncio.SelectorEventLoop):
    """Event loop of a fake on a port. Its clock also moves while a test library has frozen the time of a test."""

    def time(self) -> float:
        """Return the seconds of the machine's monotonic clock."""
        return steady()


def _reset(connection: asyncio.Transport) -> None:
    """Close a connection like a crashed peer does: with RST instead of FIN."""
    at_once = struct.pack("ii", 1, 0)
    connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    connection.abort()
