"""When an open task is checked, in which way, and at what cost. Pure rules: no I/O, and every time is an argument.

The relay's sweep and `as_completed` follow the same five rules:

1. **Schedule** (`times`). A wait is checked again after 4.5 % of its age, but at least 0.9 s and at most nine minutes
   later. So an answer is seen within the promise: a second or 5 % of the time that the person took, at most 15 minutes.
2. **Budget** (`budget`). The durations of all requests together take at most a share of the wall time, 2 % by default.
   Nothing is sent while the budget is used up. Young waits come first, and a quarter is kept for the most overdue ones
   (`order`).
3. **Costs** (`costs`). What requests really take is measured: a single read, and pages of each list by rows and offset.
4. **Way** (`ways`). For the youngest due wait three ways are priced, each divided by the number of due waits it serves,
   and the cheapest is taken: read the task; a page of the list of open tasks around its place (its rows are open, so
   they are checked); pages of the list of ended tasks, newest first, down to its age (its rows are answers). Then the
   same is done for what is left.
5. **A list is a hint.** A row proves what it shows. Absence proves nothing: a wait missing on a page of open tasks is
   read by itself. A page of ended tasks postpones a wait only up to nine minutes after a list showed its task as open,
   and only if the page reaches further back than the task, by the server's own times. Rows are matched by id and key.
   A list that is refused, out of order, or often wrong is not used for a while.

What the budget does not allow is late, and the shortfall is reported: how many waits, and by how many seconds.
"""

from awaithumans_core.schedule.budget import SAVED_SECONDS, SHARE, Budget
from awaithumans_core.schedule.costs import Costs, ListCost
from awaithumans_core.schedule.order import first_to_check
from awaithumans_core.schedule.times import (
    AGE_SHARE,
    DEADLINE_MARGIN_SECONDS,
    FIRST_CHECK_SECONDS,
    JITTER,
    MAX_CHECK_SECONDS,
    SOON_SHARE,
    YOUNG_SECONDS,
    interval,
    may_postpone,
    next_check,
    promised,
)
from awaithumans_core.schedule.ways import Ended, OpenPage, Reads, Standing, Way, best_way

__all__ = [
    "AGE_SHARE",
    "DEADLINE_MARGIN_SECONDS",
    "FIRST_CHECK_SECONDS",
    "JITTER",
    "MAX_CHECK_SECONDS",
    "SAVED_SECONDS",
    "SHARE",
    "SOON_SHARE",
    "YOUNG_SECONDS",
    "Budget",
    "Costs",
    "Ended",
    "ListCost",
    "OpenPage",
    "Reads",
    "Standing",
    "Way",
    "best_way",
    "first_to_check",
    "interval",
    "may_postpone",
    "next_check",
    "promised",
]
