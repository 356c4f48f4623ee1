"""One object a relay, which its parts tell what they do: figures, health and spans come of it."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from awaithumans_core.callback import Callback
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.trace import span, tracing
from awaithumans_relay.availability.health import Health
from awaithumans_relay.monitoring.metrics import Metrics, Result
from awaithumans_relay.store import Wait


class Observer:
    """What one relay process is seen by.

    Args:
        engines: Names of those it can wake.
    """

    def __init__(self, engines: Iterable[str] = ()) -> None:
        self.metrics = Metrics()
        self.health = Health(engines)

    def storing(self, callback: Callback) -> AbstractContextManager[None]:
        """A callback whose proofs are checked is stored."""
        if not tracing():
            return nullcontext()
        facts = {"task_id": callback.outcome.task_id, "wait_id": callback.route.digest, "engine": callback.route.engine}
        return span("receive answer", "consumer", links=[callback.route.traceparent], **facts)

    @contextmanager
    def finding(self, task_id: str, waits: Sequence[Wait]) -> Generator[None]:
        """The sweep stores an answer it has come upon."""
        with span("find answer", "consumer", links=[wait.route.traceparent for wait in waits], task_id=task_id):
            yield

    @contextmanager
    def delivering(self, wait: Wait) -> Generator[None]:
        """An engine is given an answer."""
        engine, reach = wait.route.engine, self.health.engines.get(wait.route.engine)
        facts = {"task_id": wait.task_id, "wait_id": wait.route.digest, "engine": engine}
        try:
            with (
                self.metrics.delivering(engine),
                span(f"deliver {engine}", "consumer", links=[wait.route.traceparent], **facts),
            ):
                yield
        except Exception as error:
            if reach is not None and isinstance(error, TargetGone | TargetNotReady):
                reach.reached()
            raise
        if reach is not None:
            reach.reached()

    def failed(self, engine: str, error: BaseException, *, away: bool = False) -> None:
        """An engine did not do what it was asked for; `away`: whatever the target. Why it failed is not known yet."""
        if reach := self.health.engines.get(engine):
            reach.doubted.set()
            if away:
                reach.breaks(error)

    def delivery(self, wait: Wait, result: Result, now: float) -> None:
        """How the attempt ended, once it is written down."""
        age = None if wait.answered_at is None else now - wait.answered_at
        self.metrics.delivery(wait.route.engine, result, age=age)

    def looked(self) -> None:
        """The server has shown the sweep a task."""
        self.metrics.looked()
        self.health.server.reached()

    def missed(self, error: Exception) -> None:
        """The server cannot be reached, or shows this relay nothing."""
        self.health.server.failed(error)
