"""Verifies a callback: headers + body + token -> route + outcome, or a typed rejection with the HTTP status to reply.

Law: verify, then parse, then join. Nothing of a body is read before its signature is checked, and a body that is
properly signed still answers only the question its URL was issued for. Both signatures are checked, whichever of them
is wrong, and nothing is decoded before both are valid. So a refusal takes the same time, to within a microsecond or
two, whether the token or the body's signature is wrong. Both are compared in constant time, so the remaining difference
shows at most whether a token is valid, and does not help to forge one. A token of an impossible form is refused faster.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from awaithumans_core.errors import CallbackRejectedError
from awaithumans_core.json_values import read_json
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route, RouteSigner
from awaithumans_core.signing import BLANKS, SIGNATURE_HEADER, TASK_ID_HEADER, UNSIGNED, KeyRing

MAX_BODY_BYTES = 6 * 1024 * 1024
"""The server allows 5 MB of payload and response; headers and encoding come on top."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback whose two proofs are verified."""

    route: Route
    """The route, from the URL token."""
    outcome: Outcome
    """The outcome, from the signed body."""


def open_callback(
    token: str, headers: Mapping[str, str], body: bytes, *, signer: RouteSigner, keys: KeyRing
) -> Callback:
    """Check both proofs and read the answer.

    Args:
        token: The last part of the callback URL.
        headers: Request headers; look-up must ignore case, as Starlette's do.
        body: The raw body, as received.
        signer: Opens the token.
        keys: Verify the body.

    Raises:
        CallbackRejectedError: `http_status` is 401 (token or signature), 413 (too large), 422 (not a terminal answer),
            or 403 (a true answer to another question).
    """
    too_large = len(body) > MAX_BODY_BYTES
    signed = not too_large and keys.signed(body, headers.get(SIGNATURE_HEADER, "").strip(BLANKS))
    verified = signer.verify(token)
    if too_large:
        raise CallbackRejectedError(f"the body is larger than {MAX_BODY_BYTES} bytes", http_status=413)
    if not signed:
        raise CallbackRejectedError(UNSIGNED, http_status=401)
    route, outcome = signer.read(verified), _parse(body)
    if (named := headers.get(TASK_ID_HEADER)) is not None and named.strip(BLANKS) != outcome.task_id.strip(BLANKS):
        raise CallbackRejectedError(f"{TASK_ID_HEADER} names another task than the body", http_status=422)
    if outcome.idempotency_key != route.idempotency_key:
        raise CallbackRejectedError("the answer belongs to another question than this URL", http_status=403)
    return Callback(route, outcome)


def _read(body: bytes) -> Outcome:
    """Read a body. pydantic's own reader is the fastest and refuses what is nested deep, or holds half a character."""
    try:
        return Outcome.model_validate_json(body).from_server()
    except ValidationError as invalid:
        try:
            held = read_json(body)
        except ValueError:
            raise invalid from None
        return Outcome.model_validate(held).from_server()


def _parse(body: bytes) -> Outcome:
    try:
        outcome = _read(body)
    except ValidationError as invalid:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in invalid.errors())
        raise CallbackRejectedError(f"the body is not a task callback: {wrong}", http_status=422) from None
    if not outcome.answered:
        raise CallbackRejectedError(
            f"status {outcome.status!r} with response {'absent' if outcome.response is None else 'present'} "
            "is not an answer",
            http_status=422,
            task_id=outcome.task_id,
        )
    return outcome
