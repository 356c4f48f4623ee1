"""A circuit breaker for each engine, so that all answers wait together while the engine is unreachable.

While closed, it counts consecutive failures. Failures of several different targets mean that the engine itself is
unreachable. Then it is open for a while, a little longer each time, and afterwards lets a few deliveries through as
probes. One success closes it.
"""

from collections.abc import Callable

from awaithumans_core.retry import Backoff

TRIPS_AT = 5
"""Number of different targets that must fail in a row. One target that cannot be woken is only that target's problem.
"""
PROBES = 3
"""Number of deliveries let through to check whether the engine is reachable again."""


class Breaker:
    """Decides whether deliveries to an engine are attempted now.

    Args:
        clock: Monotonic clock, in seconds.
        backoff: How long the breaker stays open after each time it trips.
    """

    def __init__(self, clock: Callable[[], float], backoff: Backoff = Backoff(first=1.0, most=30.0)) -> None:  # noqa: B008
        self._clock = clock
        self._backoff = backoff
        self._failed: set[str] = set()
        self._trips = 0
        self._until = 0.0
        self.last_error: str | None = None
        """The last error of the engine. None while it is reachable."""

    @property
    def away(self) -> bool:
        """Whether the engine counts as unreachable, even if it is being probed now."""
        return self._trips > 0

    def admits(self, wanted: int) -> int:
        """Return how many of the wanted deliveries may be attempted now."""
        if not self.away:
            return wanted
        return min(wanted, PROBES) if self._clock() >= self._until else 0

    def probing(self) -> None:
        """Note that probes were let through while the engine is unreachable, and open again at once.

        So no more deliveries are let through, however long the probes take to fail.
        """
        if self.away:
            self._open()

    @property
    def opens_in(self) -> float:
        """Seconds until the next probes are let through."""
        return max(0.0, self._until - self._clock()) if self.away else 0.0

    def succeeded(self) -> bool:
        """Note that the engine accepted a delivery or reported on a target.

        Returns whether it was unreachable before.
        """
        was_away = self.away
        self._failed.clear()
        self._trips, self._until, self.last_error = 0, 0.0, None
        return was_away

    def failed(self, target: str, error: str) -> bool:
        """Note a failure that is not the target's own. Returns whether the engine has just become unreachable."""
        self._failed.add(target)
        self.last_error = error
        if self.away or len(self._failed) < TRIPS_AT:
            return False
        self._open()
        return True

    def _open(self) -> None:
        self._trips += 1
        self._until = self._clock() + self._backoff.delay(self._trips)
