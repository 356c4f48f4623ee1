"""What can go wrong between a client and the server, and between the server and a receiver of callbacks.

Over the in-process transport, a fault of the connection arrives as the httpx error it is; on a port it happens to the
real socket.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json, to_json

Break = Literal["refused", "reset", "reset after"]


@dataclass(frozen=True)
class Fault:
    """What happens to one request."""

    name: str
    reply: tuple[int, bytes, Mapping[str, str]] | None = None
    """Reply sent in place of the server, which never receives the request."""
    change: Callable[[bytes], bytes] | None = None
    """Done to the body of the server's reply."""
    seconds: float = 0.0
    """By how much the reply is late."""
    swaps: bool = False
    """The reply goes to the next request with such a fault, whose own reply comes here, within `seconds`."""
    breaks: Break | None = None
    """How the connection ends; `reset after`: when the server has done what was asked."""


@dataclass(frozen=True)
class CallbackFault:
    """What happens to one callback."""

    name: Literal["duplicate", "late", "reordered", "bad signature", "lost"]
    seconds: float = field(default=0.0)


def status(code: int, *, retry_after: float | str | None = None, body: Any = None) -> Fault:
    """Answer with this status, for instance 429, 500, 502, 503, 504, and a Retry-After if one is given."""
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    shown = {"detail": f"HTTP {code}"} if body is None else body
    return Fault(f"status {code}", reply=(code, to_json(shown), headers))


def html(code: int = 200) -> Fault:
    """A proxy's page, as HTML."""
    page = b"<html><body><h1>Please stand by</h1></body></html>"
    return Fault(f"html {code}", reply=(code, page, {"content-type": "text/html"}))


def redirect(location: str, code: int = 307) -> Fault:
    """A redirect."""
    return Fault(f"redirect {code}", reply=(code, b"", {"location": location}))


def refused() -> Fault:
    """Refuse the connection. On a port, where the fake does listen, the connection is reset instead."""
    return Fault("refused", breaks="refused")


def reset(*, after: bool = False) -> Fault:
    """The connection is reset in the middle of the reply. `after`: when the server has done what was asked."""
    return Fault("reset after" if after else "reset", breaks="reset after" if after else "reset")


def slow(seconds: float) -> Fault:
    """The reply is so late: on the fake's clock in process, where a client's read timeout counts; really on a port."""
    return Fault(f"slow {seconds} s", seconds=seconds)


def truncated() -> Fault:
    """Half of the body, as if it were all of it."""
    return Fault("truncated", change=lambda body: body[: len(body) // 2])


def changed(**fields: Any) -> Fault:
    """The server's JSON (each record of a list) with these fields set: `status="paused"`, or an unknown one."""

    def change(body: bytes) -> bytes:
        held: dict[str, Any] | list[dict[str, Any]] = from_json(body)
        return to_json([each | fields for each in held] if isinstance(held, list) else held | fields)

    return Fault(f"changed {fields}", change=change)


def swapped(seconds: float = 5.0) -> Fault:
    """A proxy mixes up two requests: each gets the other's reply. Two requests are needed, so give an even `times`.

    Whatever the requests ask for, the server does. With `on="any"` the reply to a poll may go to a request that reads
    a record.

    Args:
        seconds: How long the first reply is kept, on the fake's clock, until there is a second one to swap it for. If
            none comes, it goes where it belongs.

    Example:
        humans.fault(faults.swapped(), on="poll", times=10)
    """
    return Fault("swapped", seconds=seconds, swaps=True)


def duplicate() -> CallbackFault:
    """The callback is sent twice."""
    return CallbackFault("duplicate")


def late(seconds: float) -> CallbackFault:
    """Send the callback later, by this delay."""
    return CallbackFault("late", seconds)


def reordered() -> CallbackFault:
    """The callback is sent after the one that comes next."""
    return CallbackFault("reordered")


def bad_signature() -> CallbackFault:
    """The callback is signed with another key, once; then, when it is tried again, with the right one."""
    return CallbackFault("bad signature")


def lost() -> CallbackFault:
    """The callback is never sent."""
    return CallbackFault("lost")
