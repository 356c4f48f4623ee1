"""One arithmetic of trying again, for the client, the sweeper and the dispatcher."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter; all of them in seconds."""

    first: float = 0.5
    """Delay after the first failure, before jitter."""
    factor: float = 2.0
    """Growth from one failure to the next."""
    most: float = 15.0
    """Ceiling of the delay, before jitter."""
    jitter: float = 0.25
    """Each delay is spread evenly over this share of itself, up and down.

    Many callers then do not knock together.
    """

    def delay(self, failures: int, *, at_least: float = 0.0) -> float:
        """Seconds to wait after `failures` failures in a row (1 or more); never less than `at_least` (Retry-After)."""
        doublings = min(failures - 1, 64)
        delay = min(self.first * self.factor**doublings, self.most)
        spread = random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spreads load, guards nothing
        return max(delay * spread, at_least)
