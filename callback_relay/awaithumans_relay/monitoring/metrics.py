"""The metrics that Prometheus reads at `/metrics`.

Each relay has its own registry, so that two in a process do not clash.

Labels are engines, states and results; never a task, a wait or a target.
"""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.errors import CallbackRejectedError

Result = Literal["delivered", "retried", "parked", "caller_gone", "lease_lost"]
"""The result of a delivery attempt.

`caller_gone`: its caller no longer needs it, and no operator has to act. `lease_lost`: its lease had expired, and
another relay has the wait.
"""

CALLBACK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""In seconds. The awaithumans server allows ten seconds for a callback."""
DELIVERY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""In seconds. A graph runs to its next question during a delivery."""
DELAY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
"""In seconds, from moments up to the length of an outage."""


class Metrics:
    """The metrics of one relay process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix: dict[str, Any] = {"namespace": "awaithumans", "subsystem": "relay", "registry": self.registry}
        self._waits = Gauge("waits", "Waits that are not delivered.", ["state", "engine"], **prefix)
        self._oldest = Gauge(
            "oldest_undelivered_answer_age_seconds",
            "Age of the oldest answer that is not delivered; 0: there is none.",
            **prefix,
        )
        self._store_up = Gauge("store_up", "Whether the store responded to this scrape.", **prefix)
        self._callbacks = Counter(
            "callbacks",
            "Callbacks by result: stored, duplicate, or the status they were refused with.",
            ["result"],
            **prefix,
        )
        self._callback_durations = Histogram(
            "callback_duration_seconds",
            "Time from the headers of a callback to its response.",
            buckets=CALLBACK_BUCKETS,
            **prefix,
        )
        self._deliveries = Counter("deliveries", "Delivery attempts by result.", ["engine", "result"], **prefix)
        self._delivery_durations = Histogram(
            "delivery_duration_seconds",
            "Time that the engine took for a delivery.",
            ["engine"],
            buckets=DELIVERY_BUCKETS,
            **prefix,
        )
        self._delivery_delays = Histogram(
            "answer_delivery_delay_seconds",
            "Time from the moment the relay stored the answer to its delivery.",
            ["engine"],
            buckets=DELAY_BUCKETS,
            **prefix,
        )
        self._checks = Counter("sweep_checks", "Tasks that the sweep has read.", **prefix)
        self._pages = Counter("sweep_pages", "Pages of task lists that the sweep has read.", ["list"], **prefix)
        self._request_seconds = Gauge(
            "sweep_request_seconds", "Sum of the durations of the sweep's requests since the start.", **prefix
        )
        self._late_waits = Gauge("sweep_late_waits", "Open waits whose check is later than promised.", **prefix)
        self._late_seconds = Gauge(
            "sweep_late_seconds", "By how many seconds the latest check exceeds the promise; 0: none does.", **prefix
        )
        self._answers_found = Counter("sweep_answers_found", "Answers that came by the sweep first.", **prefix)
        for name in ("open", "ended"):
            self._pages.labels(name)
        for result in ("stored", "duplicate", "401", "403", "413", "422", "503"):
            self._callbacks.labels(result)

    @contextmanager
    def receiving(self) -> Generator["Reception"]:
        """Time a callback and count its result."""
        reception, began = Reception(), perf_counter()
        try:
            yield reception
        except CallbackRejectedError as refused:
            reception.result = str(refused.http_status)
            raise
        except (SQLAlchemyError, OSError):
            reception.result = "503"
            raise
        finally:
            if reception.result is not None:
                self._callbacks.labels(reception.result).inc()
                self._callback_durations.observe(perf_counter() - began)

    @contextmanager
    def delivering(self, engine: str) -> Generator[None]:
        """Time the delivery of an engine."""
        with self._delivery_durations.labels(engine).time():
            yield

    def delivery(self, engine: str, result: Result, *, age: float | None) -> None:
        """Count an attempt that has ended. `age` is the answer's, in seconds."""
        self._deliveries.labels(engine, result).inc()
        if result == "delivered" and age is not None:
            self._delivery_delays.labels(engine).observe(max(0.0, age))

    def task_checked(self) -> None:
        """Count a task that the sweep has read."""
        self._checks.inc()

    def page_read(self, which: Literal["open", "ended"]) -> None:
        """Count a page of a list that the sweep has read."""
        self._pages.labels(which).inc()

    def shortfall(self, waits: int, seconds: float, spent: float) -> None:
        """Set how many checks are later than promised, by how much, and what all requests took."""
        self._late_waits.set(waits)
        self._late_seconds.set(seconds)
        self._request_seconds.set(spent)

    def answer_found(self) -> None:
        """Count an answer that the sweep has found."""
        self._answers_found.inc()

    def text(self, unfinished: Mapping[tuple[str, str], int] | None, oldest_age: float) -> bytes:
        """Return all metrics in Prometheus's text format.

        Args:
            unfinished: Waits by state and engine. None: the store does not answer, so the numbers are unknown.
            oldest_age: Age in seconds of the oldest undelivered answer. 0: there is none.
        """
        self._store_up.set(unfinished is not None)
        self._waits.clear()
        for (state, engine), count in (unfinished or {}).items():
            self._waits.labels(state, engine).set(count)
        self._oldest.set(math.nan if unfinished is None else oldest_age)
        return generate_latest(self.registry)


@dataclass(slots=True)
class Reception:
    """The result of one callback."""

    result: str | None = None
    """`stored`, `duplicate`, or the status it was refused with. None: the caller disconnected."""
