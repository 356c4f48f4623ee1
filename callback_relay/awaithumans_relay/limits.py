"""What a caller may send, and what a stranger is told.

Law: a stranger learns nothing but 401, in the same words whichever proof is wrong; the relay's log says which. Nobody
makes the relay hold more than one body's limit, and a stranger next to nothing of theirs. A body that is sent slowly is
refused at a deadline. How many connections there are, and how large their headers, the HTTP server limits (`serve`, or
a proxy). What no database can keep is refused, not asked for again.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable

from starlette.requests import Request

from awaithumans_core.errors import CallbackRejectedError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.task_id import TASK_ID_RULE, is_task_id
from awaithumans_relay.callers import judge

MAX_REGISTRATION_BYTES = 4096
"""A registration is one number."""
UNPROVEN_BYTES = 64 * 1024
"""Of a body are kept of whoever it is; as much as the HTTP server reads at a time."""
MAX_OPEN_WAITS = 8
"""Of one route. A route is one question, which has one task at a time."""
BODY_SECONDS = 20.0
"""For the whole of a body. The awaithumans server gives an attempt ten seconds."""

_JSON = json.JSONEncoder(allow_nan=False)

STRANGER = "not authorised: both proofs of a caller must be this relay's; its log says which one is not"


async def limited_body(request: Request, limit: int, *, proven: Callable[[], bool] = lambda: True) -> bytes:
    """The raw body; of one that is larger than the limit only so much that this shows.

    Args:
        request: Whose.
        limit: In bytes.
        proven: Asked once, of a body of more than `UNPROVEN_BYTES`. If not, nothing of it is kept: it is read to the
            same end, and hashed as a signed one would be. So the time shows little of which proof is wrong.

    Raises:
        CallbackRejectedError: 408: it was not complete after `BODY_SECONDS`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(request, limit, proven)
    except TimeoutError:
        raise CallbackRejectedError(f"the body was not complete after {BODY_SECONDS:.0f} s", http_status=408) from None


async def _read(request: Request, limit: int, proven: Callable[[], bool]) -> bytes:
    chunks: list[bytes] = []
    size, kept, hashed = 0, True, hashlib.sha256()
    async for chunk in request.stream():
        if kept and size <= UNPROVEN_BYTES < size + len(chunk):
            kept = proven()
            judge(request.scope, proven=kept)
            if not kept:
                hashed.update(b"".join(chunks))
                chunks.clear()
        size += len(chunk)
        if kept:
            chunks.append(chunk)
        else:
            hashed.update(chunk)
        if size > limit:
            break
    return b"".join(chunks)


def checked_task_id(task_id: str) -> str:
    """The task id, if it can be one.

    Raises:
        CallbackRejectedError: 422.
    """
    if not is_task_id(task_id):
        raise CallbackRejectedError(TASK_ID_RULE, http_status=422)
    return task_id


def checked_route(route: Route) -> Route:
    """The route, if a database can keep it, and a page show it.

    Raises:
        CallbackRejectedError: 422.
    """
    told = (route.engine, route.idempotency_key, route.traceparent or "", *route.target, *route.target.values())
    try:
        "".join(told).encode()
    except UnicodeEncodeError:
        raise CallbackRejectedError("the route holds half a character", http_status=422) from None
    return route


def checked_outcome(outcome: Outcome) -> Outcome:
    """The outcome, if a database can keep which task it is about.

    Raises:
        CallbackRejectedError: 422.
    """
    checked_task_id(outcome.task_id)
    return outcome


def storable(outcome: Outcome) -> Outcome:
    """The outcome without a response that the database cannot keep: one takes what is not JSON, the other does not."""
    try:
        _JSON.encode(outcome.response)
    except ValueError:
        return outcome.without_response("it holds a number that JSON does not have; read it from the server")
    return outcome
