"""Limits on what a caller may send, and on what a response reveals to a stranger.

Law: a stranger receives only 401, in the same words whichever proof is wrong. The relay's log names the proof. No
caller can make the relay hold more than the limit of one body, and of a stranger's body it holds almost nothing. The
bodies sent to callback URLs, which may have leaked, share a limit, since their signature cannot be checked before they
are complete. A body that is sent slowly is refused at a deadline. The HTTP server (`serve`, or a proxy) limits the
number of connections and the size of their headers. Values that no database can store are refused for good, so that the
sender does not retry.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.requests import Request

from awaithumans_core.callback import MAX_BODY_BYTES
from awaithumans_core.errors import CallbackRejectedError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.task_id import TASK_ID_RULE, is_task_id
from awaithumans_relay.web.caller_trust import judge

MAX_REGISTRATION_BYTES = 4096
"""Maximum bytes of a registration, which is one number."""
UNPROVEN_BYTES = 64 * 1024
"""Bytes of a body that are kept from any caller; as much as the HTTP server reads at a time."""
MAX_UNVERIFIED_BYTES = MAX_BODY_BYTES + 2 * 1024 * 1024
"""Maximum bytes of all incomplete larger bodies together. The awaithumans server sends one callback at a time."""
BODY_SECONDS = 20.0
"""Seconds in which a body must be complete. The awaithumans server allows ten seconds for an attempt."""

_PUSHED_OUT = "more large bodies than fit are under way, and this one began first: send it again, at once"

STRANGER = "not authorised: both proofs of a caller must be this relay's; the relay's log names the one that is not"


@dataclass(eq=False)
class _Body:
    """A body that is being read."""

    deadline: asyncio.Timeout
    loop: asyncio.AbstractEventLoop
    chunks: list[bytes] = field(default_factory=list[bytes])
    counted: int = 0
    """Bytes of this body that count against the limit."""
    refused: bool = False

    def refuse(self) -> None:
        """Drop the received part of the body at once, and end the request that reads it."""
        self.refused = True
        self.chunks.clear()
        with suppress(RuntimeError):  # its event loop has ended, and its request with it
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        with suppress(RuntimeError):  # the body was complete in the meantime
            self.deadline.reschedule(0)


class UnverifiedBodies:
    """Limits the total size of the large bodies that are not complete yet.

    If they are too large together, the one that began first is refused. So a flood of slow bodies pushes out its own,
    and a caller that sends its body at once is answered. Progress does not count, because a stranger's bodies can keep
    making some.
    """

    def __init__(self, limit: int = MAX_UNVERIFIED_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._bodies: dict[_Body, None] = {}
        """The large bodies, in the order in which they became large."""

    def count(self, body: _Body, size: int) -> None:
        """Update the counted size of a body, and refuse the oldest bodies if the total is too large."""
        self._bodies.setdefault(body)
        self._held += size - body.counted
        body.counted = size
        while self._held > self._limit:
            first = next(iter(self._bodies))
            self.release(first)
            first.refuse()

    def release(self, body: _Body) -> None:
        """Remove a body that is complete or refused from the count."""
        if body in self._bodies:
            del self._bodies[body]
            self._held -= body.counted


async def limited_body(
    request: Request,
    limit: int,
    *,
    proven: Callable[[], bool] = lambda: True,
    unverified: UnverifiedBodies | None = None,
) -> bytes:
    """Return the raw body. If it is larger than the limit, reading stops as soon as that is known.

    Args:
        request: The request that carries the body.
        limit: Maximum size in bytes.
        proven: Called once, for a body of more than `UNPROVEN_BYTES`. If it returns False, nothing of the body is kept.
            It is still read to the same end and hashed as a signed one would be, so that the response time reveals
            little about which proof is wrong.
        unverified: The other bodies with which a body of more than `UNPROVEN_BYTES` shares a limit. Default: none.

    Raises:
        CallbackRejectedError: 408: it was not complete after `BODY_SECONDS`; 503: it had to yield to others.
    """
    others = unverified or UnverifiedBodies()
    body = _Body(asyncio.timeout(BODY_SECONDS), asyncio.get_running_loop())
    try:
        async with body.deadline:
            await _read(request, limit, proven, body, others)
        if not body.refused:
            return b"".join(body.chunks)
    except TimeoutError:
        if not body.refused:
            late = f"the body was not complete after {BODY_SECONDS:.0f} s"
            raise CallbackRejectedError(late, http_status=408) from None
    finally:
        others.release(body)
        body.chunks.clear()  # the traceback of a refusal holds them until the next garbage collection
    raise CallbackRejectedError(_PUSHED_OUT, http_status=503)


async def _read(
    request: Request, limit: int, proven: Callable[[], bool], body: _Body, others: UnverifiedBodies
) -> None:
    size, kept, hashed = 0, True, hashlib.sha256()
    async for chunk in request.stream():
        if kept and size <= UNPROVEN_BYTES < size + len(chunk):
            kept = proven()
            judge(request.scope, proven=kept)
            if not kept:
                hashed.update(b"".join(body.chunks))
                body.chunks.clear()
        size += len(chunk)
        if not kept:
            hashed.update(chunk)
        elif not body.refused:
            body.chunks.append(chunk)
            if size > UNPROVEN_BYTES:
                others.count(body, size)
        if size > limit:
            break


def checked_task_id(task_id: str) -> str:
    """Return the task id if it is valid.

    Raises:
        CallbackRejectedError: The task id is invalid (422).
    """
    if not is_task_id(task_id):
        raise CallbackRejectedError(TASK_ID_RULE, http_status=422)
    return task_id


def checked_route(route: Route) -> Route:
    """Return the route if a database can store it and a page can show it.

    Raises:
        CallbackRejectedError: The route cannot be encoded (422).
    """
    caller = route.caller or {}
    texts = (
        route.engine,
        route.idempotency_key,
        route.traceparent or "",
        *route.target,
        *route.target.values(),
        *caller,
        *caller.values(),
    )
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise CallbackRejectedError("the route holds half a character", http_status=422) from None
    return route


def checked_outcome(outcome: Outcome) -> Outcome:
    """Return the outcome if a database can store the id of its task.

    Raises:
        CallbackRejectedError: The task id is invalid (422).
    """
    checked_task_id(outcome.task_id)
    return outcome
