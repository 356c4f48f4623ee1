"""When the relay looks at an open wait by itself, because not every answer is called back.

The next look comes after 5 % of the wait's age: an answer that was never called back is noticed within a twentieth of
the time the person took, and a wait of a month costs a few looks an hour, not one every few seconds.

Law: the database holds absolute times, and a clock may be set back. A time that is further ahead than the longest
interval it can have been set to was set by a clock that was ahead, and is due now.
"""

import random

from awaithumans_core.missing import DETECT_SECONDS

FIRST_CHECK_SECONDS = 5.0
"""Never sooner: the server's own callback queue runs every 5 s."""
MOST_CHECK_SECONDS = DETECT_SECONDS
"""Never later, however old the wait is: a task that was deleted is noticed by a check alone."""
AGE_SHARE = 0.05
JITTER = 0.1
"""Looks are brought forward by up to this share, so that waits opened together do not stay together."""
DEADLINE_MARGIN_SECONDS = 8.0
"""The server's scheduler marks a timeout up to 5 s after the deadline; look once it has."""


LONGEST_RETRY_SECONDS = 15 * 60.0
"""No delivery is put off for longer at once, whatever a target's Retry-After asks for."""
LONGEST_LEASE_SECONDS = 60.0
"""No relay leases a wait for longer at once."""


def next_check(*, now: float, created_at: float, deadline_at: float) -> float:
    """Epoch seconds of the next look at a wait that is still open."""
    interval = min(max(FIRST_CHECK_SECONDS, AGE_SHARE * (now - created_at)), MOST_CHECK_SECONDS)
    due = now + interval * (1 - random.uniform(0, JITTER))  # noqa: S311 - spreads load, guards nothing
    at_deadline = deadline_at + DEADLINE_MARGIN_SECONDS
    return min(due, at_deadline) if now < at_deadline else due
