"""Who may look at the waits and redrive them: whoever holds AWAITHUMANS_RELAY_OPERATOR_TOKEN.

Law: a stranger learns nothing but 401, whatever they ask for and whether or not there is a token at all; without one
the operator's doors open for nobody. The token travels in the Authorization header alone: never in a URL, a page or a
log.

Programs send it as bearer. Browsers send it by HTTP Basic: any user name, the token as password. That needs no login
page, no script, no session and no cookie, and one check serves both. What a browser sends of itself it sends for
foreign pages, too, so a form is taken only with its own proof, which stands in our page, where no foreign page can read
it. It is signed with the operator's token and lasts for a working day. Doors that change something and are no form of
ours open for a bearer alone, which no browser sends unasked.
"""

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from itsdangerous import BadSignature, TimestampSigner
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.signing import BLANKS
from awaithumans_relay.monitoring.repeated_lines import Repeats
from awaithumans_relay.store.errors import StoreUnavailableError, public_reason
from awaithumans_relay.web.caller_trust import judge
from awaithumans_relay.web.problem import problem

FORM_SECONDS = 12 * 3600
"""A page that stays open for longer is opened again before its buttons work."""

GUESS_SECONDS = 1.0
"""Until a wrong token is refused. The right one is never delayed."""
GUESSES_PER_SECOND = 20.0
"""Refused, of all callers together: with more of them each waits longer."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of everything that is shown to an operator, unless the response has its own."""

_CHALLENGE = 'Basic realm="awaithumans relay: any user name, the operator token as password", charset="UTF-8"'
_CHALLENGE_OF_PROGRAMS = 'Bearer realm="awaithumans relay: the operator token"'
_FORM = "redrive"


class Operator:
    """Authenticates the operator by the token. If no token is configured, every request is refused.

    Args:
        token: The operator's.
        refusals: Logs that a wrong one was sent.
    """

    def __init__(self, token: str | None, refusals: Repeats) -> None:
        self._token = token
        self._refusals = refusals
        self._guessing = 0
        """Requests with a wrong token that are not refused yet."""

    def is_caller(self, authorization: str | None, *, browsers: bool = True) -> bool:
        """Whether this Authorization header holds the token. Constant time in what it holds."""
        given = _presented(authorization, browsers=browsers)
        return self._token is not None and hmac.compare_digest(given, self._token.encode())

    async def slow_down(self, request: Request) -> None:
        """Log a request that presents a wrong token, and hold its refusal back; until its caller hangs up, at most."""
        if request.headers.get("authorization") is None:
            return
        caller = request.client.host if request.client else "an unknown address"
        why = "wrong operator token" if self._token else "no operator token is configured"
        self._refusals.warn("operator requests refused (401)", f"refused (401), {why}, from {caller}")
        judge(request.scope, proven=False)
        self._guessing += 1
        try:
            async with asyncio.timeout(max(GUESS_SECONDS, self._guessing / GUESSES_PER_SECOND)):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            pass
        finally:
            self._guessing -= 1

    def form_proof(self) -> str:
        """Put into a form, so that the form is known to be ours when it is sent."""
        return self._signer().sign(_FORM).decode()

    def is_our_form(self, proof: str) -> bool:
        """Whether a form carries a proof of ours that has not run out."""
        try:
            return self._signer().unsign(proof, max_age=FORM_SECONDS) == _FORM.encode()
        except (BadSignature, UnicodeError):
            return False

    def _signer(self) -> TimestampSigner:
        if self._token is None:
            raise BadSignature("there is no operator")
        return TimestampSigner(self._token, salt="awaithumans-relay-form-v1")


def doors_of(operator: Operator, refusal: Callable[[], Response | None], *, forms: bool = False) -> type[APIRoute]:
    """A class of routes that open for the operator alone, before anything else of a request is looked at.

    Args:
        operator: Whom they know.
        refusal: The response, to the operator alone, while the relay is not running; None: it is.
        forms: Whether what is posted carries a proof of its own, so that a browser may post it.
    """

    class Door(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                browsers = forms or request.method == "GET"
                if not operator.is_caller(request.headers.get("authorization"), browsers=browsers):
                    await operator.slow_down(request)
                    wanted = {"WWW-Authenticate": _CHALLENGE if browsers else _CHALLENGE_OF_PROGRAMS}
                    return _sealed(problem(401, "UNAUTHORISED", "not authorised", headers=wanted))
                return _sealed(refusal() or await _answered(handle, request))

            return guarded

    return Door


async def _answered(handle: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    try:
        return await handle(request)
    except (SQLAlchemyError, OSError) as trouble:
        return problem(503, StoreUnavailableError.code, public_reason(trouble))


def _sealed(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def credentials(authorization: str | None) -> tuple[str, str]:
    """The scheme (in lower case) and the credentials of an Authorization header, without the blanks around them."""
    scheme, _, given = (authorization or "").strip(BLANKS).partition(" ")
    return scheme.lower(), given.strip(BLANKS)


def _presented(authorization: str | None, *, browsers: bool) -> bytes:
    """The token in an Authorization header; empty if there is none."""
    match credentials(authorization):
        case "bearer", token:
            return token.encode()
        case "basic", user_and_token if browsers:
            try:
                return base64.b64decode(user_and_token, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return b""
        case _:
            return b""
