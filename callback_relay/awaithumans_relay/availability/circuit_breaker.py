"""A circuit breaker for each engine, so that all answers wait together while the engine is unreachable.

It is closed until the engine's tracker shows that deliveries to several different targets fail. Then it is open for a
while, a little longer each time, and afterwards lets a few deliveries through as probes. One success closes it.
"""

from collections.abc import Callable

from awaithumans_core.retry import Backoff
from awaithumans_relay.availability.tracker import AvailabilityTracker

PROBES = 3
"""Number of deliveries let through to check whether the engine is reachable again."""


class CircuitBreaker:
    """Decides whether deliveries to an engine are attempted now.

    Args:
        tracker: The availability of the engine.
        clock: Monotonic clock, in seconds.
        backoff: How long the circuit breaker stays open after each time it opens.
    """

    def __init__(
        self,
        tracker: AvailabilityTracker,
        clock: Callable[[], float],
        backoff: Backoff = Backoff(first=1.0, most=30.0),  # noqa: B008 - frozen
    ) -> None:
        self._tracker = tracker
        self._clock = clock
        self._backoff = backoff
        self._opened = 0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether deliveries to the engine fail, even if it is being probed now."""
        return self._tracker.all_work_fails

    def admits(self, wanted: int) -> int:
        """Return how many of the wanted deliveries may be attempted now."""
        if not self.is_open:
            return wanted
        return min(wanted, PROBES) if self._clock() >= self._until else 0

    def probing(self) -> None:
        """Note that probes were let through while the engine is unreachable, and open again at once.

        So no more deliveries are let through, however long the probes take to fail.
        """
        if self.is_open:
            self._open()

    @property
    def probes_in(self) -> float:
        """Seconds until the next probes are let through."""
        return max(0.0, self._until - self._clock()) if self.is_open else 0.0

    def succeeded(self) -> None:
        """Note that the engine accepted a delivery or reported on a target."""
        self._tracker.succeeded()
        self._opened, self._until = 0, 0.0

    def failed(self, target: str, error: BaseException) -> None:
        """Note a failure that may be the engine's and not only the target's.

        Opens if this shows that all work fails.
        """
        if self._tracker.subject_failed(target, error):
            self._open()

    def _open(self) -> None:
        self._opened += 1
        self._until = self._clock() + self._backoff.delay(self._opened)
