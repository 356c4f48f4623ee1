"""Floods by strangers, as large or as slow as possible, against a relay in its own process."""

import asyncio
import json
import secrets
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, suppress

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from devservers import RelayServer, started

from awaithumans_core import Route
from awaithumans_core.route import RouteSigner
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay.web.bounded_http import HEADERS_SECONDS, MAX_CONNECTIONS
from awaithumans_relay.web.limits import BODY_SECONDS
from tests.support.connections import established
from tests.support.servers import FakeServer

pytestmark = pytest.mark.edges

MB = 1024 * 1024


class Target:
    """A relay under attack, and the one caller that has both proofs."""

    def __init__(self, server: RelayServer, secret: str, key: bytes) -> None:
        self.server = server
        self._signer, self._key = RouteSigner([secret]), key
        self._asked = 0

    @property
    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return int(psutil.Process(self.server.process.pid).memory_info().rss)

    @property
    def leaked(self) -> str:
        """Return the token of a callback URL."""
        return self._signer.issue(Route("langgraph-server", {"thread_id": "leaked"}, "leaked"))

    async def call_back(self, content: str = "") -> float:
        """Return how many seconds a valid callback took."""
        self._asked += 1
        name = f"question-{self._asked}"
        body = {"task_id": name, "idempotency_key": name, "status": "completed", "response": {"text": content}}
        raw, token = json.dumps(body).encode(), self._signer.issue(Route("langgraph-server", {"thread_id": name}, name))
        begun = time.monotonic()
        async with httpx.AsyncClient(timeout=10.0) as http:  # the server's timeout for an attempt
            reply = await http.post(
                f"{self.server.url}/callbacks/{token}",
                content=raw,
                headers={"X-Awaithumans-Signature": sign(raw, self._key)},
            )
        assert reply.status_code == 200
        return time.monotonic() - begun


@pytest.fixture(scope="module")
async def target(fake: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Target]:
    secret = secrets.token_urlsafe(32)
    arguments = ["--langgraph-server", "http://127.0.0.1:9", "--database", "sqlite:///waits.db"]
    server = RelayServer(tmp_path_factory.mktemp("target"), fake, arguments, secret=secret)  # type: ignore[arg-type]
    async with started(server):
        target = Target(server, secret, derive_webhook_key(fake.payload_key))
        for _ in range(20):
            await target.call_back("x" * MB)
        yield target


def send_headers(port: int, size: int) -> int:
    """Return how many bytes of endless headers the server accepts before it closes the connection."""
    line = b"x-filler: " + b"a" * 16_000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream, suppress(OSError):
        stream.sendall(b"POST /callbacks/x HTTP/1.1\r\nhost: relay\r\n")
        while sent < size:
            stream.sendall(line)
            sent += len(line)
    return sent


async def test_headers_are_limited(target: Target) -> None:
    """Eight connections that send 48 MB of headers each are closed, and the relay keeps almost none of it."""
    before = target.memory
    sent = await asyncio.gather(*(asyncio.to_thread(send_headers, target.server.port, 48 * MB) for _ in range(8)))
    assert max(sent) < 8 * MB  # buffers of both sockets
    assert target.memory - before < 30 * MB
    await target.call_back()


BEGINNINGS = [b"", b"POST /call", b"PUT /waits/a HTTP/1.1\r\nhost: r\r\ncontent-length: 4000\r\n\r\n{"]
"""Incomplete requests: nothing, half a line, half a body."""


async def test_callbacks_are_answered_during_a_flood_of_slow_connections(target: Target) -> None:
    """With 900 incomplete requests open, the oldest connections are closed and valid callbacks are answered.

    The callbacks are small and large. No connection outlives its deadline, however slowly its data comes.
    """
    before = target.memory
    with ExitStack() as stack:
        slow: list[socket.socket] = []
        for number in range(900):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", target.server.port), timeout=10))
            stream.sendall(BEGINNINGS[number % len(BEGINNINGS)])
            slow.append(stream)
            if len(slow) % 100 == 0:
                assert await target.call_back("x" * 2 * MB) < 5
        async with asyncio.timeout(5):  # the kernel also counts connections that the relay has not accepted yet
            while len(established(target.server.port)) > MAX_CONNECTIONS + 1:
                await asyncio.sleep(0.05)
        assert target.memory - before < 60 * MB
        until = time.monotonic() + max(HEADERS_SECONDS, BODY_SECONDS) + 5
        while len(established(target.server.port)) > 1 and time.monotonic() < until:
            for stream in slow[-60:]:
                with suppress(OSError):
                    stream.send(b"/")
            await asyncio.sleep(0.5)
        assert len(established(target.server.port)) <= 1
    assert await target.call_back() < 5


async def test_leaked_url_holds_little_memory_and_blocks_no_callback(target: Target) -> None:
    """With 600 connections stalled near the end of a large body, the relay keeps few and answers valid callbacks.

    The attacker has read one callback URL. The valid callbacks are small and large.
    """
    before = target.memory
    head = f"POST /callbacks/{target.leaked} HTTP/1.1\r\nhost: r\r\ncontent-length: {5 * MB}\r\n\r\n".encode()
    with ExitStack() as stack:
        for number in range(600):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", target.server.port), timeout=10))
            with suppress(OSError):  # the relay has already closed this connection
                await asyncio.to_thread(stream.sendall, head + b"x" * (3 * MB if number < 60 else 70_000))
            if number % 100 == 99:
                assert await target.call_back("x" * 2 * MB) < 5
                assert await target.call_back() < 5
        assert target.memory - before < 60 * MB


async def test_slow_body_is_refused_at_its_deadline(target: Target) -> None:
    """A body that arrives too slowly gets 408, with or without a proof."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
    writer.write(b"POST /callbacks/forged.token HTTP/1.1\r\nhost: r\r\ncontent-length: 5000000\r\n\r\n")
    begun = time.monotonic()
    answer = asyncio.create_task(reader.read(300))
    while not answer.done() and time.monotonic() - begun < BODY_SECONDS + 10:
        writer.write(b" ")
        await asyncio.sleep(0.2)
    async with asyncio.timeout(5):
        assert b" 408 " in await answer
    assert time.monotonic() - begun == pytest.approx(BODY_SECONDS, abs=5)
    writer.close()


async def test_unread_responses_hold_little_memory(target: Target) -> None:
    """Clients that never read their responses stop their own connections and no other."""
    before = target.memory
    asked = b"GET /metrics HTTP/1.1\r\nhost: r\r\n\r\n" * 400
    with ExitStack() as stack:
        for _ in range(20):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", target.server.port), timeout=10))
            stream.setblocking(False)
            with suppress(BlockingIOError):
                stream.send(asked)
        assert await target.call_back() < 10
    assert target.memory - before < 60 * MB


async def test_websocket_upgrade_is_ignored(target: Target) -> None:
    """An upgraded connection would have no limits, so the request is answered as any other."""
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "a", "Sec-WebSocket-Version": "13"}
    async with httpx.AsyncClient(base_url=target.server.url) as http:
        assert (await http.get("/healthz", headers=headers)).status_code == 200


async def test_malformed_requests_are_logged_in_one_line(target: Target) -> None:
    """A hundred requests that are not HTTP make one log line."""

    def sent() -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as stream, suppress(OSError):
                stream.sendall(b"\x16\x03\x01\r\n\r\n")
                stream.recv(100)

    before = target.server.process.output().count("Invalid HTTP request")
    await asyncio.to_thread(sent)
    assert target.server.process.output().count("Invalid HTTP request") - before <= 2
