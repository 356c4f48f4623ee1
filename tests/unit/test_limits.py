"""Memory limits for request bodies: what one caller can make the relay hold."""

import asyncio
import tracemalloc

import pytest
from starlette.requests import Request
from starlette.types import Message

from awaithumans_core.callback import MAX_BODY_BYTES
from awaithumans_core.errors import CallbackRejectedError
from awaithumans_relay.web.bounded_http import READ_BYTES
from awaithumans_relay.web.limits import MAX_UNVERIFIED_BYTES, UNPROVEN_BYTES, UnverifiedBodies, limited_body

PIECE = 32 * 1024
MB = 1024 * 1024


def sending(size: int) -> Request:
    """Return a request that sends its body piece by piece."""
    left = [PIECE] * (size // PIECE)

    async def receive() -> Message:
        piece = bytes(left.pop())
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Request({"type": "http"}, receive)


async def test_body_with_invalid_token_is_not_kept() -> None:
    """A body of the maximum size is read to its end, so that a stranger learns nothing, and discarded meanwhile."""
    tracemalloc.start()
    try:
        assert await limited_body(sending(MAX_BODY_BYTES), MAX_BODY_BYTES, proven=lambda: False) == b""
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MAX_BODY_BYTES / 4


@pytest.mark.parametrize("size", [PIECE, UNPROVEN_BYTES, UNPROVEN_BYTES + PIECE, MAX_BODY_BYTES])
@pytest.mark.parametrize("proven", [True, False])
async def test_kept_part_of_a_body_depends_on_its_token(size: int, proven: bool) -> None:  # noqa: FBT001
    """A body with a valid token is kept completely, and any other one only if it is small."""
    asked: list[bool] = []

    def proof() -> bool:
        asked.append(proven)
        return proven

    body = await limited_body(sending(size), MAX_BODY_BYTES, proven=proof)
    assert len(body) == (size if proven or size <= UNPROVEN_BYTES else 0)
    assert asked == ([proven] if size > UNPROVEN_BYTES else [])


async def test_body_is_read_up_to_the_limit() -> None:
    """One piece more is read of a larger body, which shows that it is too large."""
    assert len(await limited_body(sending(10 * MAX_BODY_BYTES), MAX_BODY_BYTES)) == MAX_BODY_BYTES + PIECE


def stalling(size: int) -> Request:
    """Return a request that sends this much and then stalls without ending."""
    left = [PIECE] * (size // PIECE)

    async def receive() -> Message:
        await asyncio.sleep(0 if left else 60)
        return {"type": "http.request", "body": bytes(left.pop()), "more_body": True}

    return Request({"type": "http"}, receive)


async def test_incomplete_bodies_share_a_limit() -> None:
    """An attacker with a leaked callback URL opens many connections that stall near the end of large bodies.

    Most of them are refused, and a callback that is sent completely is read.
    """
    unverified = UnverifiedBodies()
    tracemalloc.start()
    try:
        slow = [
            asyncio.create_task(limited_body(stalling(5 * MB), MAX_BODY_BYTES, unverified=unverified))
            for _ in range(20)
        ]
        async with asyncio.timeout(10):
            while sum(each.done() for each in slow) < len(slow) - MAX_UNVERIFIED_BYTES // (5 * MB):
                await asyncio.sleep(0)
        held, _ = tracemalloc.get_traced_memory()
        body = await limited_body(sending(MAX_BODY_BYTES), MAX_BODY_BYTES, unverified=unverified)
    finally:
        tracemalloc.stop()
    assert held < MAX_UNVERIFIED_BYTES + MB
    assert len(body) == MAX_BODY_BYTES
    refused = [each for each in slow if each.done()]
    assert {type(each.exception()) for each in refused} == {CallbackRejectedError}
    assert {each.exception().http_status for each in refused} == {503}  # type: ignore[union-attr]
    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    for _ in range(10):  # nothing of them is still counted
        await limited_body(sending(MAX_BODY_BYTES), MAX_BODY_BYTES, unverified=unverified)


async def test_oldest_incomplete_body_is_refused_first() -> None:
    """It is refused even if it makes progress, because a stranger's body can continue to make some."""
    unverified = UnverifiedBodies()
    slow = [asyncio.create_task(limited_body(stalling(MB), MAX_BODY_BYTES, unverified=unverified)) for _ in range(3)]
    for _ in range(2 * MB // PIECE):
        await asyncio.sleep(0)
    assert len(await limited_body(sending(MAX_BODY_BYTES), MAX_BODY_BYTES, unverified=unverified)) == MAX_BODY_BYTES
    await asyncio.wait(slow, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    for each in slow:
        each.cancel()
    ended = await asyncio.gather(*slow, return_exceptions=True)
    assert [isinstance(each, CallbackRejectedError) for each in ended] == [True, False, False]


async def test_small_bodies_do_not_count_towards_the_limit() -> None:
    """Small bodies are accepted, however many there are."""
    unverified = UnverifiedBodies(limit=0)
    assert len(await limited_body(sending(UNPROVEN_BYTES), MAX_BODY_BYTES, unverified=unverified)) == UNPROVEN_BYTES


async def test_asyncio_has_the_read_size_attribute() -> None:
    """The attribute is undocumented, and this test fails if a release renames it."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        size = getattr(writer.transport, "max_size", 0)
        await reader.read()
        writer.close()
        await writer.wait_closed()
    assert size > READ_BYTES
