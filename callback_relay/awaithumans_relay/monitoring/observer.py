"""The observer of a relay, to which its parts report events. Metrics, health and spans are derived from them."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.callback import Callback
from awaithumans_core.errors import CallbackRejectedError
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.signing import UNSIGNED
from awaithumans_core.trace import span, tracing
from awaithumans_relay.availability.health import Health
from awaithumans_relay.monitoring.metrics import Metrics, Result
from awaithumans_relay.store import Wait
from awaithumans_relay.store.readiness import PROBE_ENGINE

logger = safe_logger("awaithumans.relay")


@dataclass
class Signatures:
    """When callbacks of the server were last verified and refused, which shows whether the webhook key is its key."""

    verified_at: datetime | None = None
    refused_at: datetime | None = None


class Observer:
    """Records the events of one relay process.

    Args:
        engines: Names of the relay's engines.
    """

    def __init__(self, engines: Iterable[str] = ()) -> None:
        self.metrics = Metrics()
        self.health = Health(engines)
        self.signatures = Signatures()

    def storing(self, callback: Callback) -> AbstractContextManager[None]:
        """Note a callback whose proofs were checked, and trace its storing."""
        if callback.route.engine != PROBE_ENGINE:  # a probe is not signed by the server
            self.signatures.verified_at = datetime.now(UTC)
        if not tracing():
            return nullcontext()
        facts = {"task_id": callback.outcome.task_id, "wait_id": callback.route.digest, "engine": callback.route.engine}
        return span("receive answer", "consumer", links=[callback.route.traceparent], **facts)

    @contextmanager
    def verifying(self) -> Generator[None]:
        """Note whether the body of a callback to a valid URL is signed with the relay's key. Probes do not count."""
        try:
            yield
        except CallbackRejectedError as refused:
            if refused.text == UNSIGNED:
                self.signatures.refused_at = datetime.now(UTC)
            raise

    @contextmanager
    def finding(self, task_id: str, waits: Sequence[Wait]) -> Generator[None]:
        """Trace the storing of an answer that the sweep has found."""
        with span("find answer", "consumer", links=[wait.route.traceparent for wait in waits], task_id=task_id):
            yield

    @contextmanager
    def delivering(self, wait: Wait) -> Generator[None]:
        """Time and trace a delivery to an engine."""
        engine = wait.route.engine
        facts = {"task_id": wait.task_id, "wait_id": wait.route.digest, "engine": engine}
        with (
            self.metrics.delivering(engine),
            span(f"deliver {engine}", "consumer", links=[wait.route.traceparent], **facts),
        ):
            yield

    def delivery(self, wait: Wait, result: Result, now: float) -> None:
        """Count the result of an attempt once it is recorded."""
        age = None if wait.answered_at is None else now - wait.answered_at
        self.metrics.delivery(wait.route.engine, result, age=age)

    def store_failed(self, error: Exception) -> None:
        """Note that the waits could not be read. An error that is not the database's is logged with its traceback."""
        if isinstance(error, SQLAlchemyError | OSError):
            self.health.store.failed(error)
        else:
            logger.error("reading waits failed; trying again", exc_info=error)
