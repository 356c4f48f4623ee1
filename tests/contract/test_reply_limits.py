"""Limits on replies that a client reads, and warnings about requests that others can read."""

import ast
import asyncio
import gzip
import logging
import secrets
import threading
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from awaithumans_adapters.langgraph import LangGraphServerEngine
from awaithumans_core import HumanTasks, Settings, SyncTaskClient, TaskClient, UnexpectedReplyError
from awaithumans_core.flow import Patience, ended_page
from awaithumans_core.http.clients import MAX_REPLY_BYTES, async_client, exposures, sync_client

ROOT = Path(__file__).parents[2]
BOMB = gzip.compress(bytes(4 * MAX_REPLY_BYTES), 6)
"""A reply of about 130 kB that decompresses to 128 MB."""
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
SMALL = {
    "identity": b"[]",
    "gzip": gzip.compress(b"[]"),
    "deflate": zlib.compress(b"[]"),
    "raw deflate": RAW.compress(b"[]") + RAW.flush(),
}


class Replies(BaseHTTPRequestHandler):
    """Reply to every request with the body named by the last part of the path, or with the bomb."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].replace("%20", " ")
        body = SMALL.get(name, BOMB)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", name.removeprefix("raw ") if name in (*SMALL, "br") else "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """An HTTP server that ignores clients that hang up, which these tests expect."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hostile() -> Generator[str]:
    server = Server(("127.0.0.1", 0), Replies)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def read_async(url: str) -> None:
    async with TaskClient(url, "token", patience=0) as client:
        await client.get("task-1")


async def read_sync(url: str) -> None:
    with SyncTaskClient(url, "token", patience=0) as client:
        await asyncio.to_thread(client.get, "task-1")


async def read_langgraph(url: str) -> None:
    engine = LangGraphServerEngine(url)
    try:
        await engine.check()
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (read_async, UnexpectedReplyError),
        (read_sync, UnexpectedReplyError),
        (read_langgraph, httpx.DecodingError),
    ],
    ids=["async", "sync", "LangGraph server"],
)
async def test_compressed_reply_is_cut_at_the_limit(
    hostile: str, read: Callable[[str], Awaitable[None]], error: type[Exception]
) -> None:
    """A small reply that decompresses to 128 MB costs at most the limit and ends in a typed error."""
    tracemalloc.start()
    try:
        with pytest.raises(error, match="larger than"):
            await read(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MAX_REPLY_BYTES


@pytest.mark.parametrize("encoding", SMALL)
async def test_compressed_replies_are_read(hostile: str, encoding: str) -> None:
    """Both clients decompress the encodings that they ask for."""
    async with async_client(base_url=hostile) as client:
        assert (await client.get(f"/{encoding}")).json() == []
    with sync_client(base_url=hostile) as plain:
        assert (await asyncio.to_thread(plain.get, f"/{encoding}")).json() == []


async def test_encoding_that_was_not_requested_is_refused(hostile: str) -> None:
    """Only httpx could decompress such a reply, and it would do so without a limit."""
    async with async_client(base_url=hostile) as client:
        with pytest.raises(httpx.DecodingError, match="'br'"):
            await client.get("/br")


async def test_list_page_that_is_too_large_is_read_again_with_half_the_size(hostile: str) -> None:
    """A list of large tasks is read to its end: the next page starts at the same place with half the size."""
    async with TaskClient(hostile, "token", patience=0) as client:
        page = await client.run(ended_page(0, 25, Patience(0)))
        single = await client.run(ended_page(0, 1, Patience(0)))
    assert (page.tasks, page.full, page.covered, page.next_size) == ([], True, 0, 12)
    assert (single.tasks, single.full, single.covered, single.next_size) == ([], True, 1, 1)


CONSTRUCTORS = {"httpx.AsyncClient", "httpx.Client", "get_client", "get_sync_client"}


def test_every_http_client_of_the_package_limits_its_replies() -> None:
    """One module constructs the httpx clients, and LangGraph SDK clients are limited where they are made."""
    made = {
        str(file.relative_to(ROOT / folder))
        for folder in ("core", "adapters", "callback_relay")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CONSTRUCTORS
    }
    assert made == {
        "awaithumans_core/http/clients.py",
        "awaithumans_adapters/langgraph/server_engine/engine.py",
    }


@pytest.mark.parametrize(
    ("url", "proxies", "words"),
    [
        ("http://humans.example:3001", {}, ["clear text. Use https://, unless"]),
        ("http://127.0.0.1:3001", {}, []),
        ("http://[::1]:3001", {}, []),
        ("http://localhost:3001", {}, []),
        ("https://humans.example", {"HTTP_PROXY": "http://u:pw@proxy:3128", "HTTPS_PROXY": "http://proxy:3128"}, []),
        ("http://localhost:3001", {"HTTP_PROXY": "http://u:pw@proxy:3128"}, ["HTTP_PROXY"]),
        ("http://localhost:3001", {"ALL_PROXY": "http://u:pw@proxy:3128"}, ["ALL_PROXY"]),
        ("http://localhost:3001", {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost"}, []),
        ("http://humans.example", {"HTTP_PROXY": "http://u:pw@proxy:3128"}, ["clear text. Use https://", "HTTP_PROXY"]),
    ],
    ids=["other host", "IPv4", "IPv6", "localhost", "tunnel", "proxy", "any proxy", "no proxy", "both"],
)
def test_exposed_token_is_reported(
    url: str, proxies: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain HTTP to another host and a proxy that reads the token each give one warning without a password."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    found = exposures("AWAITHUMANS_URL", url, "the API token")
    assert len(found) == len(words)
    for message, expected in zip(found, words, strict=True):
        assert expected in message
        assert message.startswith("AWAITHUMANS_URL is http://")
        assert "pw" not in message


def test_exposed_token_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many clients a process makes, it logs one line, without the token."""
    with caplog.at_level(logging.WARNING, "awaithumans"):
        for _ in range(2):
            TaskClient("http://server-of-this-test.example", "the-token")
            SyncTaskClient("http://server-of-this-test.example", "the-token")
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == 1
    assert "http://server-of-this-test.example: the API token" in found[0]
    assert "the-token" not in found[0]


def test_exposed_registrations_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The relay's address is checked as well, because registrations carry a proof."""
    settings = Settings.load(
        url="https://humans.example",
        admin_api_token="t",
        relay_url="http://relay-of-this-test.example",
        relay_secret=secrets.token_urlsafe(32),
    )
    with caplog.at_level(logging.WARNING, "awaithumans"):
        HumanTasks(settings)
    assert [record.getMessage()[:21] for record in caplog.records] == ["AWAITHUMANS_RELAY_URL"]
