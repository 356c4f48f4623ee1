"""Strangers who send as much as they can, as slowly as they can, to a relay in a process of its own."""

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
        """Resident bytes."""
        return int(psutil.Process(self.server.process.pid).memory_info().rss)

    @property
    def leaked(self) -> str:
        """The token of a callback URL."""
        return self._signer.issue(Route("langgraph-server", {"thread_id": "leaked"}, "leaked"))

    async def call_back(self, content: str = "") -> float:
        """How many seconds a true callback took."""
        self._asked += 1
        name = f"question-{self._asked}"
        body = {"task_id": name, "idempotency_key": name, "status": "completed", "response": {"text": content}}
        raw, token = json.dumps(body).encode(), self._signer.issue(Route("langgraph-server", {"thread_id": name}, name))
        begun = time.monotonic()
        async with httpx.AsyncClient(timeout=10.0) as http:  # as long as the server gives an attempt
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
    """How many bytes of endless headers a server takes before it hangs up."""
    line = b"x-filler: " + b"a" * 16_000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream, suppress(OSError):
        stream.sendall(b"POST /callbacks/x HTTP/1.1\r\nhost: relay\r\n")
        while sent < size:
            stream.sendall(line)
            sent += len(line)
    return sent


async def test_headers_are_bounded(target: Target) -> None:
    """Eight connections that send 48 MB of headers each: the relay hangs up and holds next to nothing of it."""
    before = target.memory
    sent = await asyncio.gather(*(asyncio.to_thread(send_headers, target.server.port, 48 * MB) for _ in range(8)))
    assert max(sent) < 8 * MB  # what the sockets of both ends hold
    assert target.memory - before < 30 * MB
    await target.call_back()


BEGINNINGS = [b"", b"POST /call", b"PUT /waits/a HTTP/1.1\r\nhost: r\r\ncontent-length: 4000\r\n\r\n{"]
"""Nothing, half a line, half a body."""


async def test_callbacks_get_through_a_flood_of_slow_connections(target: Target) -> None:
    """Strangers open 900 connections and send no complete request: the oldest give way, and true callbacks, small and
    large, are answered. None of the connections outlives its deadline, however the rest drips in."""
    before = target.memory
    with ExitStack() as stack:
        slow: list[socket.socket] = []
        for number in range(900):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", target.server.port), timeout=10))
            stream.sendall(BEGINNINGS[number % len(BEGINNINGS)])
            slow.append(stream)
            if len(slow) % 100 == 0:
                assert await target.call_back("x" * 2 * MB) < 5
        async with asyncio.timeout(5):  # the kernel counts those that the relay has yet to take up
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


async def test_leaked_url_holds_little_and_blocks_nobody(target: Target) -> None:
    """Whoever has read one callback URL opens 600 connections and stalls near the end of a large body on each: the
    relay holds a few of them, and true callbacks, small and large, are answered."""
    before = target.memory
    head = f"POST /callbacks/{target.leaked} HTTP/1.1\r\nhost: r\r\ncontent-length: {5 * MB}\r\n\r\n".encode()
    with ExitStack() as stack:
        for number in range(600):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", target.server.port), timeout=10))
            with suppress(OSError):  # it has been pushed out already
                await asyncio.to_thread(stream.sendall, head + b"x" * (3 * MB if number < 60 else 70_000))
            if number % 100 == 99:
                assert await target.call_back("x" * 2 * MB) < 5
                assert await target.call_back() < 5
        assert target.memory - before < 60 * MB


async def test_slow_body_is_refused_at_its_deadline(target: Target) -> None:
    """A body that drips is answered with 408, with or without a proof."""
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


async def test_unread_responses_hold_little(target: Target) -> None:
    """Callers that ask on and on and never read what they are sent stop their own connections and no other."""
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


async def test_websocket_is_not_opened(target: Target) -> None:
    """An upgraded connection would have no limits: the request is answered as any other."""
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "a", "Sec-WebSocket-Version": "13"}
    async with httpx.AsyncClient(base_url=target.server.url) as http:
        assert (await http.get("/healthz", headers=headers)).status_code == 200


async def test_malformed_requests_write_one_line(target: Target) -> None:
    """A hundred requests that are not HTTP are one line of the log."""

    def sent() -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as stream, suppress(OSError):
                stream.sendall(b"\x16\x03\x01\r\n\r\n")
                stream.recv(100)

    before = target.server.process.output().count("Invalid HTTP request")
    await asyncio.to_thread(sent)
    assert target.server.process.output().count("Invalid HTTP request") - before <= 2
