"""What one caller can make the relay hold."""

import tracemalloc

import pytest
from starlette.requests import Request
from starlette.types import Message

from awaithumans_core.callback import MAX_BODY_BYTES
from awaithumans_relay.limits import UNPROVEN_BYTES, limited_body

PIECE = 32 * 1024


def sending(size: int) -> Request:
    """A request that sends its body piece by piece."""
    left = [PIECE] * (size // PIECE)

    async def receive() -> Message:
        piece = bytes(left.pop())
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Request({"type": "http"}, receive)


async def test_a_stranger_makes_the_relay_hold_next_to_nothing() -> None:
    """A body of the largest size is read to its end, so that a stranger learns nothing, and forgotten meanwhile."""
    tracemalloc.start()
    try:
        assert await limited_body(sending(MAX_BODY_BYTES), MAX_BODY_BYTES, proven=lambda: False) == b""
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MAX_BODY_BYTES / 4


@pytest.mark.parametrize("size", [PIECE, UNPROVEN_BYTES, UNPROVEN_BYTES + PIECE, MAX_BODY_BYTES])
@pytest.mark.parametrize("proven", [True, False])
async def test_what_is_kept(size: int, proven: bool) -> None:  # noqa: FBT001
    """All of a body whose token is ours, and of any other one that is small."""
    asked: list[bool] = []

    def proof() -> bool:
        asked.append(proven)
        return proven

    body = await limited_body(sending(size), MAX_BODY_BYTES, proven=proof)
    assert len(body) == (size if proven or size <= UNPROVEN_BYTES else 0)
    assert asked == ([proven] if size > UNPROVEN_BYTES else [])


async def test_no_more_than_the_limit_is_read() -> None:
    """Of what is too large one piece more, so that it shows."""
    assert len(await limited_body(sending(10 * MAX_BODY_BYTES), MAX_BODY_BYTES)) == MAX_BODY_BYTES + PIECE
