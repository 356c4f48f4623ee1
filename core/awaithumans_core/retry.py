"""Backoff for retries, shared by the client, the sweeper and the dispatcher."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


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
    """Each delay is spread evenly over this share of itself, up and down. This avoids a thundering herd."""

    def delay(self, failures: int, *, at_least: float = 0.0) -> float:
        """Return the seconds to wait after `failures` (1 or more) in a row, at least `at_least` (Retry-After)."""
        doublings = min(failures - 1, 64)
        delay = min(self.first * self.factor**doublings, self.most)
        spread = random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spreads load, guards nothing
        return max(delay * spread, at_least)


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header (RFC 9110: seconds or a date), 0 without one. Names are in lower case."""
    if not (value := headers.get("retry-after")):
        return 0.0
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else 0.0
    except ValueError:
        pass
    # The date is compared with the server's own clock, because the local one may be wrong.
    then, now = _date(value), _date(headers.get("date"))
    return max(0.0, then - now) if then is not None and now is not None else 0.0


def _date(value: str | None) -> float | None:
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
