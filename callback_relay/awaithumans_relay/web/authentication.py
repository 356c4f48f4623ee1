"""Authentication of the operator, who may list and redrive waits: the holder of AWAITHUMANS_RELAY_OPERATOR_TOKEN.

Law: a stranger receives only 401, whatever the request and whether or not a token is configured. Without one the
operator's endpoints refuse every request. The token is sent in the Authorization header alone: never in a URL, a page
or a log.

Programs send it as bearer. Browsers send it by HTTP Basic: any user name, the token as password. That needs no login
page, no script, no session and no cookie, and one check serves both. Credentials that a browser sends automatically are
also sent for requests of foreign pages. So a form is accepted only with its own proof, which is in our page, where no
foreign page can read it. It is signed with the operator's token and is valid for twelve hours, a working day. Endpoints
that change something and are not our forms accept a bearer alone, which no browser sends automatically.
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
"""Seconds for which a form is valid. A page that is open for longer must be reloaded before its buttons work."""

GUESS_SECONDS = 1.0
"""Minimum seconds until a wrong token is refused. The right one is never delayed."""
GUESSES_PER_SECOND = 20.0
"""Maximum refusals per second of all callers together. With more of them, each one waits longer."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every operator response, unless the response sets its own."""

_CHALLENGE = 'Basic realm="awaithumans relay: any user name, the operator token as password", charset="UTF-8"'
_CHALLENGE_OF_PROGRAMS = 'Bearer realm="awaithumans relay: the operator token"'
_FORM = "redrive"


class Operator:
    """Authenticates the operator by the token. If no token is configured, every request is refused.

    Args:
        token: The operator token. None: no token is configured.
        refusals: Logs requests with a wrong token.
    """

    def __init__(self, token: str | None, refusals: Repeats) -> None:
        self._token = token
        self._refusals = refusals
        self._guessing = 0
        """Number of requests with a wrong token that are not refused yet."""

    def is_caller(self, authorization: str | None, *, browsers: bool = True) -> bool:
        """Whether this Authorization header holds the token. The comparison takes constant time."""
        given = _presented(authorization, browsers=browsers)
        return self._token is not None and hmac.compare_digest(given, self._token.encode())

    async def slow_down(self, request: Request) -> None:
        """Log a request that presents a wrong token, and delay its refusal, at most until its caller disconnects."""
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
        """Return a proof to put into a form, which shows on submission that the form is ours."""
        return self._signer().sign(_FORM).decode()

    def is_our_form(self, proof: str) -> bool:
        """Whether a form carries a proof of ours that has not expired."""
        try:
            return self._signer().unsign(proof, max_age=FORM_SECONDS) == _FORM.encode()
        except (BadSignature, UnicodeError):
            return False

    def _signer(self) -> TimestampSigner:
        if self._token is None:
            raise BadSignature("there is no operator")
        return TimestampSigner(self._token, salt="awaithumans-relay-form-v1")


def operator_route(
    operator: Operator, refusal: Callable[[], Response | None], *, forms: bool = False
) -> type[APIRoute]:
    """Return a class of routes that accept only the operator, checked before any other part of a request is read.

    Args:
        operator: Authenticates the operator.
        refusal: The response, to the operator alone, while the relay is not running. None: it is running.
        forms: Whether what is posted carries its own proof, so that a browser may post it.
    """

    class OperatorRoute(APIRoute):
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

    return OperatorRoute


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
    """Return the scheme (in lower case) and the credentials of an Authorization header, without blanks around them."""
    scheme, _, given = (authorization or "").strip(BLANKS).partition(" ")
    return scheme.lower(), given.strip(BLANKS)


def _presented(authorization: str | None, *, browsers: bool) -> bytes:
    """Return the token in an Authorization header, or nothing if there is none."""
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
