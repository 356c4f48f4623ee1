"""Steps of a wall clock, detected by comparing it with a monotonic clock.

Ages and leases are differences of wall clock times. A clock that is set forward by an hour makes everything an hour
older at once. Nothing may be given up, deleted or taken over for that reason.
"""

import math
import time
from collections import deque
from collections.abc import Callable

TOLERANCE_SECONDS = 2.0
"""Maximum difference, in seconds, that counts as gradual adjustment of the clock."""
REMEMBERED = 64
"""Number of steps that are remembered. Older ones are forgotten."""


class ClockSteps:
    """The steps of one wall clock since it was first noted.

    Args:
        steady: Monotonic clock, in seconds.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._offset: float | None = None
        self._first_at = self._last_at = -math.inf
        self._forward: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        """Wall time before each step forward, and its size in seconds."""

    def note(self, wall: float) -> None:
        """Compare the clocks; `wall` is in epoch seconds."""
        now = self._steady()
        offset = wall - now
        if self._offset is None:
            self._offset, self._first_at = offset, now
        elif abs(step := offset - self._offset) > TOLERANCE_SECONDS:
            self._offset, self._last_at = offset, now
            if step > 0:
                self._forward.append((wall - step, step))

    def skipped(self, since: float) -> float:
        """Return the seconds that the clock has skipped since this wall clock time."""
        return sum(size for before, size in self._forward if before >= since)

    def ago(self, seconds: float, now: float) -> float:
        """Return the wall clock time this many seconds before `now`, without those that the clock has skipped."""
        then = now - seconds
        for before, size in reversed(self._forward):
            if then < before + size:
                then -= size
        return then

    @property
    def noted_for(self) -> float:
        """Seconds since the clock was first noted."""
        return self._steady() - self._first_at

    @property
    def quiet_for(self) -> float:
        """Seconds since the last step was detected; infinite without one."""
        return self._steady() - self._last_at
