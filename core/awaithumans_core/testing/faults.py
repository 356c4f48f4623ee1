"""Faults of requests to the fake server, and of its callbacks.

With the in-process transport, a connection fault is raised as the corresponding httpx error. On a port it happens to
the real socket.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json, to_json

Break = Literal["refused", "reset", "reset after"]


@dataclass(frozen=True)
class Fault:
    """A fault that happens to one request."""

    name: str
    reply: tuple[int, bytes, Mapping[str, str]] | None = None
    """Reply sent in place of the server, which never receives the request."""
    change: Callable[[bytes], bytes] | None = None
    """Changes the body of the server's reply."""
    seconds: float = 0.0
    """Delay of the reply in seconds."""
    swaps: bool = False
    """Whether the reply is swapped with that of the next request with such a fault, if one comes within `seconds`."""
    breaks: Break | None = None
    """How the connection ends. `reset after`: once the server has handled the request."""


@dataclass(frozen=True)
class CallbackFault:
    """A fault that happens to one callback."""

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
    """Reply with an HTML page, as a proxy does."""
    page = b"<html><body><h1>Please stand by</h1></body></html>"
    return Fault(f"html {code}", reply=(code, page, {"content-type": "text/html"}))


def redirect(location: str, code: int = 307) -> Fault:
    """Reply with a redirect to this location."""
    return Fault(f"redirect {code}", reply=(code, b"", {"location": location}))


def refused() -> Fault:
    """Refuse the connection. On a port, where the fake does listen, the connection is reset instead."""
    return Fault("refused", breaks="refused")


def reset(*, after: bool = False) -> Fault:
    """Reset the connection in the middle of the reply. With `after`, the server has handled the request before."""
    return Fault("reset after" if after else "reset", breaks="reset after" if after else "reset")


def slow(seconds: float) -> Fault:
    """Delay the reply: in process on the fake's clock, with the client's read timeout; on a port in real time."""
    return Fault(f"slow {seconds} s", seconds=seconds)


def truncated() -> Fault:
    """Send half of the body as if it were complete."""
    return Fault("truncated", change=lambda body: body[: len(body) // 2])


def changed(**fields: Any) -> Fault:
    """Set these fields in the server's JSON, or in each record of a list, for instance `status="paused"`."""

    def change(body: bytes) -> bytes:
        held: dict[str, Any] | list[dict[str, Any]] = from_json(body)
        return to_json([each | fields for each in held] if isinstance(held, list) else held | fields)

    return Fault(f"changed {fields}", change=change)


def swapped(seconds: float = 5.0) -> Fault:
    """Swap the replies of two requests, as a faulty proxy does. Two requests are needed, so give an even `times`.

    The server handles both requests. With `on="any"` the reply to a poll may go to a request that reads
    a record.

    Args:
        seconds: How long the first reply is kept, on the fake's clock, until there is a second one to swap it for. If
            none comes, it goes where it belongs.

    Example:
        humans.fault(faults.swapped(), on="poll", times=10)
    """
    return Fault("swapped", seconds=seconds, swaps=True)


def duplicate() -> CallbackFault:
    """Send the callback twice."""
    return CallbackFault("duplicate")


def late(seconds: float) -> CallbackFault:
    """Send the callback later, by this delay."""
    return CallbackFault("late", seconds)


def reordered() -> CallbackFault:
    """Send the callback after the next one."""
    return CallbackFault("reordered")


def bad_signature() -> CallbackFault:
    """Sign the first attempt of the callback with a wrong key, and each retry with the right key."""
    return CallbackFault("bad signature")


def lost() -> CallbackFault:
    """Drop the callback without sending it."""
    return CallbackFault("lost")
