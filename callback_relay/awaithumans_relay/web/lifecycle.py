"""Whether the relay runs, and the refusal of every request while it does not.

Law: a relay that is not running does not acknowledge. It would store the answer and not deliver it, and the server
would not send it again.

Starlette and FastAPI do not run the lifespan of an application that is mounted inside another one, nor of a router that
is included after the start. Such a relay receives requests and never starts, so it has to refuse them itself.
"""

from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import cast

from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.web.problem import problem

logger = safe_logger("awaithumans.relay")


class Phase(StrEnum):
    """The phases of a relay. Every value but `RUNNING` is the reason of a refusal."""

    NEW = "this relay has not been started: its lifespan has not run"
    STARTING = "this relay is starting"
    RUNNING = "this relay is running"
    FAILED = "this relay could not start"
    STOPPING = "this relay is stopping"
    STOPPED = "this relay has stopped"


_FIXES = {
    Phase.NEW: "the lifespan of a mounted application, and of a router that is included after the start, is not run by "
    "FastAPI or Starlette. Run it in the lifespan of the outer application, around its yield: "
    "`async with relay_app.router.lifespan_context(relay_app):` for create_app, "
    "`async with relay_router.lifespan_context(app):` for create_router",
    Phase.FAILED: "the error was raised by the relay's lifespan; correct its cause and start the application again",
    Phase.STOPPED: "its lifespan has ended; keep the lifespan open for as long as requests are routed to the relay",
}
"""Phases that do not pass without action -> what to do."""


class Lifecycle:
    """Tracks the phase of one relay."""

    def __init__(self) -> None:
        self._phase = Phase.NEW
        self._reported: Phase | None = None

    @property
    def running(self) -> bool:
        """Whether requests are accepted."""
        return self._phase is Phase.RUNNING

    @property
    def begun(self) -> bool:
        """Whether the relay has begun to start and has not completely stopped."""
        return self._phase in {Phase.STARTING, Phase.RUNNING, Phase.STOPPING}

    @contextmanager
    def of_start(self) -> Generator[None]:
        """Set the phases from the start of the relay to its complete end."""
        self._phase, self._reported = Phase.STARTING, None
        try:
            yield
        finally:
            self._phase = Phase.FAILED if self._phase is Phase.STARTING else Phase.STOPPED

    @contextmanager
    def of_work(self) -> Generator[None]:
        """Set the phase in which requests are accepted."""
        self._phase = Phase.RUNNING
        try:
            yield
        finally:
            self._phase = Phase.STOPPING

    def refusal(self) -> JSONResponse | None:
        """Return the response to a request that must not be accepted now. None: it may be accepted."""
        if self._phase is Phase.RUNNING:
            return None
        fix = _FIXES.get(self._phase)
        if fix is not None and self._reported is not self._phase:
            self._reported = self._phase
            logger.error("requests are refused (503): %s; %s", self._phase, fix)
        return problem(503, "RELAY_NOT_RUNNING", self._phase, started=False if self._phase is Phase.NEW else None)

    def gate(self, kind: type[APIRoute]) -> type[APIRoute]:
        """Return a class of routes of this kind that refuse requests, unread, while the relay is not running."""

        async def handle(route: APIRoute, scope: Scope, receive: Receive, send: Send) -> None:
            refusal = self.refusal()
            await (kind.handle(route, scope, receive, send) if refusal is None else refusal(scope, receive, send))

        return cast("type[APIRoute]", type(kind.__name__, (kind,), {"handle": handle}))
