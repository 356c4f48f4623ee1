"""Verifies and stores what callers and the awaithumans server send.

Laws: success is reported only after the commit, and everything that is not stored raises. An acknowledgement waits only
for the store: waking the caller is the dispatcher's work.
"""

import logging
from collections.abc import Callable, Collection, Iterable

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request

from awaithumans_core.callback import MAX_BODY_BYTES, open_callback
from awaithumans_core.errors import CallbackRejectedError, EngineUnknownError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.services import with_flag
from awaithumans_core.settings import Settings
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import WaitState
from awaithumans_relay.store.readiness import PROBE_ENGINE
from awaithumans_relay.store.waits.intake import Intake
from awaithumans_relay.web.limits import (
    MAX_REGISTRATION_BYTES,
    UnverifiedBodies,
    checked_outcome,
    checked_route,
    checked_task_id,
    limited_body,
)

logger = safe_logger("awaithumans.relay")

_OF_CALLBACK_URL = (
    "the bearer is the token of a callback URL, which registers no wait: update awaithumans-workflows in the processes "
    "that ask. If they are up to date, a stranger has read a callback URL"
)
"""A reason that appears only in the log."""
_OF_CALLER = "the bearer is the proof of a caller, not one for the report of the relay"
"""A reason that appears only in the log."""


class Registration(BaseModel):
    """Body of `PUT /waits/{task_id}`."""

    timeout_seconds: int = Field(gt=0, le=2_592_000)
    """The task's timeout. The relay checks the task once it has passed."""
    missing: bool = False
    """Whether the caller, which asks again after a failure, did not find its task on the server."""


class Receiver:
    """Stores registrations and callbacks, once their proofs are verified.

    Args:
        intake: Stores registrations and answers.
        engines: Names of the relay's engines.
        settings: Holds the keys of proofs.
        observer: Notified of every callback.
        unverified: The large bodies that are being received, which share a limit.
        on_answer: Called with the engines for which an answer was stored.
        on_callback: Called with the outcome of every callback that brought something new.
    """

    def __init__(
        self,
        intake: Intake,
        engines: Collection[str],
        settings: Settings,
        observer: Observer,
        unverified: UnverifiedBodies,
        *,
        on_answer: Callable[[Iterable[str] | None], None],
        on_callback: Callable[[Outcome], None],
    ) -> None:
        self._intake = intake
        self._engines = engines
        self._signer = settings.signer()
        self._keys = settings.key_ring()
        self._observer = observer
        self._unverified = unverified
        self._on_answer = on_answer
        self._on_callback = on_callback

    async def register(self, task_id: str, proof: str, body: bytes) -> WaitState:
        """Register the wait of a caller, whose proof contains the route of the answer."""
        route = self._proven(proof, task_id)
        if len(body) > MAX_REGISTRATION_BYTES:
            raise CallbackRejectedError(f"the body is larger than {MAX_REGISTRATION_BYTES} bytes", http_status=413)
        try:
            given = Registration.model_validate_json(body)
        except ValidationError as invalid:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in invalid.errors())
            raise CallbackRejectedError(wrong, http_status=422) from None
        if route.engine not in self._engines:
            raise EngineUnknownError(
                f"this relay has no engine {with_flag(route.engine)}; it has: {', '.join(self._engines) or 'none'}"
            )
        state = await self._intake.register(
            checked_task_id(task_id), route, given.timeout_seconds, missing=given.missing
        )
        if state == WaitState.ANSWERED:
            self._on_answer(None)
        return state

    async def open_task(self, proof: str) -> str | None:
        """Return the task of the wait that the proof's route has open."""
        return await self._intake.open_task(self._proven(proof, None))

    def check_report_proof(self, proof: str) -> None:
        """Check that the proof was made for the report of this relay, by a holder of the relay secret.

        Raises:
            CallbackRejectedError: 401: it was not.
        """
        if self._proven(proof, None).engine != PROBE_ENGINE:
            raise CallbackRejectedError(_OF_CALLER, http_status=401)

    async def receive(self, token: str, request: Request) -> WaitState:
        """Verify and store a callback of the awaithumans server, then wake the dispatcher."""
        with self._observer.metrics.receiving() as reception:
            body = await limited_body(
                request, MAX_BODY_BYTES, proven=lambda: self._signer.knows(token), unverified=self._unverified
            )
            with self._observer.verifying():
                callback = open_callback(token, request.headers, body, signer=self._signer, keys=self._keys)
            outcome, route = checked_outcome(callback.outcome), checked_route(callback.route)
            with self._observer.storing(callback):
                answered = await self._intake.answer(outcome, found_by="callback", route=route)
            reception.result = "stored" if answered else "duplicate"
        if answered:
            self._on_answer(answered)
            self._on_callback(outcome)
        if logger.isEnabledFor(logging.INFO):
            this = about(outcome.task_id, route)
            logger.info("callback for task %s: %s (%s)", outcome.task_id, outcome.status, reception.result, extra=this)
        return WaitState.ANSWERED

    def _proven(self, proof: str, task_id: str | None) -> Route:
        """Return the route in a caller's proof for this task, or (without a task) for asking which task it has open."""
        try:
            return checked_route(self._signer.open_proof(proof, task_id))
        except CallbackRejectedError as refused:
            if refused.http_status == 401 and self._signer.knows(proof):
                raise CallbackRejectedError(_OF_CALLBACK_URL, http_status=401) from None
            raise
