"""When a wait is checked next, and by when an answer is promised to be seen."""

import random

from awaithumans_core.deleted_tasks import DETECT_SECONDS
from awaithumans_core.retry import Backoff

PROMISED_SECONDS = 1.0
PROMISED_SHARE = 0.05
PROMISED_MAX_SECONDS = 15 * 60.0
"""The promise: an answer is seen within this share of the person's time, but at least and at most these seconds."""

FIRST_CHECK_SECONDS = 0.9
"""Minimum seconds until the next check. The rest of the promised second is for the requests themselves."""
AGE_SHARE = 0.045
"""Interval of checks as a share of the age of the wait."""
MAX_CHECK_SECONDS = DETECT_SECONDS
"""Maximum seconds until the next check, however old the wait is. Only a check can notice that a task was deleted."""
JITTER = 0.1
"""Checks are brought forward by up to this share, so that waits opened together spread out."""
DEADLINE_MARGIN_SECONDS = 8.0
"""Seconds after the deadline at which the wait is checked. The server's scheduler marks a timeout up to 5 s late."""
SOON_SHARE = 0.25
"""A wait due within this share of an interval is checked by a page that shows it anyway.

So waits that can share a page come due together.
"""
RETRY_SECONDS = 5.0
"""Seconds until a check that failed is repeated."""
PROBE_BACKOFF = Backoff(first=1.0, most=15.0)
"""Delay between two checks of a server that is unreachable."""
OVERLOOKED_SECONDS = 5.0
"""A task that had ended this many seconds before the list of ended tasks was read, should have been on it."""
YOUNG_SECONDS = 20 * 60.0
"""A wait younger than this is checked before older ones. At this age its interval is a minute."""


def promised(age: float) -> float:
    """Return the seconds within which an answer given at this age of the wait is to be seen."""
    return min(max(PROMISED_SECONDS, PROMISED_SHARE * age), PROMISED_MAX_SECONDS)


def interval(age: float) -> float:
    """Return the seconds between two checks of a wait of this age, without jitter."""
    return min(max(FIRST_CHECK_SECONDS, AGE_SHARE * age), MAX_CHECK_SECONDS)


def may_postpone(since_listed: float, age: float) -> bool:
    """Whether the list of ended tasks may postpone the check of a wait of this age.

    A list must have shown the task as open, since a token that sees it in the one list sees it in the other. The
    postponed check comes at most `MAX_CHECK_SECONDS` later than that.

    Args:
        since_listed: Seconds since a list of open tasks showed the task. Infinite: never.
        age: Age of the wait in seconds.
    """
    return 0 <= since_listed <= MAX_CHECK_SECONDS - interval(age)


def next_check(*, now: float, created_at: float, deadline_at: float) -> float:
    """Return the time of the next check of a wait that is still open. All times are from one clock."""
    due = now + interval(now - created_at) * (1 - random.uniform(0, JITTER))  # noqa: S311 - spreads load, guards nothing
    at_deadline = deadline_at + DEADLINE_MARGIN_SECONDS
    return min(due, at_deadline) if now < at_deadline else due
