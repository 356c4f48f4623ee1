"""A breaker for each engine: while one is away, its answers wait together, and not each for itself.

Closed, it counts failures in a row; several, of different targets, mean that the engine itself is away. Then it is open
for a while, a little longer each time, and lets a few through to see whether the engine is back: one success closes it.
"""

from collections.abc import Callable

from awaithumans_core.retry import Backoff

TRIPS_AT = 5
"""Different targets that failed in a row. One target that cannot be woken is that target's own trouble."""
PROBES = 3
"""Deliveries let through to see whether the engine is back."""


class Breaker:
    """Whether an engine is worth trying now.

    Args:
        clock: Seconds that only grow.
        backoff: How long it stays open after each time it trips.
    """

    def __init__(self, clock: Callable[[], float], backoff: Backoff = Backoff(first=1.0, most=30.0)) -> None:  # noqa: B008
        self._clock = clock
        self._backoff = backoff
        self._failed: set[str] = set()
        self._trips = 0
        self._until = 0.0
        self.last_error: str | None = None
        """What the engine last failed with; None while it is there."""

    @property
    def away(self) -> bool:
        """Whether the engine counts as away, being tried now or not."""
        return self._trips > 0

    def admits(self, wanted: int) -> int:
        """How many of so many deliveries may be tried now."""
        if not self.away:
            return wanted
        return min(wanted, PROBES) if self._clock() >= self._until else 0

    def probing(self) -> None:
        """Some were let through while it is away. It is open again at once, however long they take to fail."""
        if self.away:
            self._open()

    @property
    def opens_in(self) -> float:
        """Seconds until some are let through again."""
        return max(0.0, self._until - self._clock()) if self.away else 0.0

    def succeeded(self) -> bool:
        """The engine has taken a delivery, or answered for a target. Returns whether it is back from being away."""
        was_away = self.away
        self._failed.clear()
        self._trips, self._until, self.last_error = 0, 0.0, None
        return was_away

    def failed(self, target: str, error: str) -> bool:
        """A delivery failed for another reason than its target's. Returns whether the engine has just gone away."""
        self._failed.add(target)
        self.last_error = error
        if self.away or len(self._failed) < TRIPS_AT:
            return False
        self._open()
        return True

    def _open(self) -> None:
        self._trips += 1
        self._until = self._clock() + self._backoff.delay(self._trips)
