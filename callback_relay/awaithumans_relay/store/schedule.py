"""When a delivered answer may be delivered once more, and how far ahead the times of the table may lie.

When an open wait is checked is decided by `awaithumans_core.schedule`.

Law: the database holds absolute times, and a clock may be set back. A time that is further ahead than the longest
interval it can have been set to was set by a clock that was ahead, and is due now.
"""

MAX_RETRY_SECONDS = 15 * 60.0
"""Maximum seconds by which one retry may be put off, whatever a target's Retry-After asks for."""
REDELIVERY_SECONDS = 1.0
"""Base spacing in seconds between repeated deliveries to a caller that registers again.

The first repeat is immediate. The second follows this many seconds later, and each spacing after that is doubled.
"""
MAX_REDELIVERY_SECONDS = 5 * 60.0
"""Maximum spacing in seconds between two repeated deliveries of one wait."""
MAX_REDELIVERIES = 20
"""Maximum number of repeated deliveries of one wait, until it has rested for `REDELIVERY_REST_SECONDS`.

A caller that restarts, is reset or continues as new needs one each time. It normally needs none, because it finds the
answer on the server first. 20 are enough for more than an hour of restarts in a row. The harm that the holder of a
leaked registration proof can do with them is limited to 20 signals that Temporal drops.
"""
REDELIVERY_REST_SECONDS = 24 * 3600.0
MAX_LEASE_SECONDS = 60.0
"""Maximum seconds for which a relay leases a wait at once."""


def next_redelivery(*, now: float, count: int, last: float | None) -> tuple[float, int] | None:
    """Return when a delivered answer may be delivered once more, and the new count. None: not before a rest.

    Args:
        now: Epoch seconds.
        count: Repeated deliveries so far.
        last: When the last of them was due. None: there was none.
    """
    last = None if last is None or last > now + MAX_REDELIVERY_SECONDS else last
    if last is None or now - last >= REDELIVERY_REST_SECONDS:
        return now, 1
    if count >= MAX_REDELIVERIES:
        return None
    spacing = min(REDELIVERY_SECONDS * 2 ** (count - 1), MAX_REDELIVERY_SECONDS)
    return min(max(now, last + spacing), now + MAX_REDELIVERY_SECONDS), count + 1
