"""When the relay looks at an open wait by itself, because not every answer is called back.

The next look comes after 5 % of the wait's age: an answer that was never called back is noticed within a twentieth of
the time the person took, and a wait of a month costs a few looks an hour, not one every few seconds.

Law: the database holds absolute times, and a clock may be set back. A time that is further ahead than the longest
interval it can have been set to was set by a clock that was ahead, and is due now.
"""

import random

from awaithumans_core.deleted_tasks import DETECT_SECONDS

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
REDELIVERY_SECONDS = 1.0
"""A caller that registers again gets its answer again at once, the next time after this long, then after twice that."""
LONGEST_REDELIVERY_SECONDS = 5 * 60.0
"""The longest spacing between two repeated deliveries of one wait."""
REDELIVERIES = 20
"""Repeated deliveries of one wait, until it has rested for `REDELIVERY_REST_SECONDS`.

A caller that restarts, is reset or continues as new needs one each time and normally none, because it finds the answer
on the server first. 20 last for more than an hour of restarts in a row; what a holder of a leaked registration proof
can cause with them is 20 signals that Temporal drops.
"""
REDELIVERY_REST_SECONDS = 24 * 3600.0
LONGEST_LEASE_SECONDS = 60.0
"""No relay leases a wait for longer at once."""


def next_check(*, now: float, created_at: float, deadline_at: float) -> float:
    """Epoch seconds of the next look at a wait that is still open."""
    interval = min(max(FIRST_CHECK_SECONDS, AGE_SHARE * (now - created_at)), MOST_CHECK_SECONDS)
    due = now + interval * (1 - random.uniform(0, JITTER))  # noqa: S311 - spreads load, guards nothing
    at_deadline = deadline_at + DEADLINE_MARGIN_SECONDS
    return min(due, at_deadline) if now < at_deadline else due


def next_redelivery(*, now: float, count: int, last: float | None) -> tuple[float, int] | None:
    """When a delivered answer may be delivered once more, and the new count. None: not before a rest.

    Args:
        now: Epoch seconds.
        count: Repeated deliveries so far.
        last: When the last of them was due; None: there was none.
    """
    last = None if last is None or last > now + LONGEST_REDELIVERY_SECONDS else last
    if last is None or now - last >= REDELIVERY_REST_SECONDS:
        return now, 1
    if count >= REDELIVERIES:
        return None
    spacing = min(REDELIVERY_SECONDS * 2 ** (count - 1), LONGEST_REDELIVERY_SECONDS)
    return min(max(now, last + spacing), now + LONGEST_REDELIVERY_SECONDS), count + 1
