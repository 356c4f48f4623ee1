"""The budget of requests: a token bucket that holds seconds of request time and fills with the wall time."""

from dataclasses import dataclass

SHARE = 0.02
"""Default share of the wall time that requests may take together."""
SAVED_SECONDS = 60.0
"""The wall time that the bucket holds, either way.

After a rest, the budget of this time may be used at once. After a request that took too long, nothing is sent for at
most this time.
"""

MAX_RATIO = 5.0
"""A request counts at most this multiple of its expected duration.

A server that is down does no work, and one that is busy with others is slow for a moment. If it stays slow, the
expectation follows.
"""

REST_SECONDS = 0.5
"""Seconds for which the bucket fills once it is empty, so that requests come a few at once."""


@dataclass(slots=True)
class Budget:
    """Seconds of request time that may be used now. Negative: debt, which must be paid off first."""

    share: float = SHARE
    left: float = 0.0
    at: float = 0.0
    """When `left` was counted."""

    @classmethod
    def full(cls, now: float, share: float = SHARE) -> "Budget":
        """Return a bucket that is full."""
        return cls(share, share * SAVED_SECONDS, now)

    def refill(self, now: float) -> float:
        """Add the budget of the time that has passed, and return what is left. A clock set back adds nothing."""
        self.left = min(self.left + self.share * max(0.0, now - self.at), self.share * SAVED_SECONDS)
        self.at = now
        return self.left

    def spend(self, seconds: float) -> None:
        """Deduct the duration of a request. The debt is limited, so that one slow request does not stop the checks."""
        self.left = max(self.left - seconds, -self.share * SAVED_SECONDS)

    def wait(self, reserved: float = 0.0) -> float:
        """Return the seconds until a request is allowed again, while this much is reserved for others."""
        left = self.left - reserved
        return 0.0 if left > 0 else -left / self.share + REST_SECONDS
