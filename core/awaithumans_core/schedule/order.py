"""Which due waits are checked first when the budget does not allow all of them.

Law: no wait is starved. However many young waits there are, a quarter of the checks is for the most overdue waits.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

W = TypeVar("W")

OVERDUE_SHARE = 0.25
"""Share of the checks that is kept for the most overdue waits."""


def first_to_check(young: Sequence[W], others: Sequence[W], limit: int) -> list[W]:
    """Return the waits to check now: young ones in three quarters of the places at least, then others.

    A share of a place is given at random, because there may be places for one or two waits only, time after time.

    Args:
        young: Young due waits, the most overdue first.
        others: Other due waits, the most overdue first.
        limit: Maximum number of waits.
    """
    quarter = int(limit * OVERDUE_SHARE + random.random())  # noqa: S311 - shares places, guards nothing
    kept = min(len(others), max(quarter, limit - len(young)))
    return [*young[: limit - kept], *others[:kept]]
