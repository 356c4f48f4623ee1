"""The choice between the three ways to check due waits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from awaithumans_core.schedule.costs import MAX_PAGE_TASKS, Costs

SIZES = (25, 50, 100, MAX_PAGE_TASKS)
"""Numbers of tasks that a page is requested with."""
MAX_ENDED_PAGES = 25
"""Maximum number of pages of ended tasks that are read in a row."""
LEAD = 10
"""Minimum number of rows before the expected place of a task at which a page of open tasks begins.

Places are estimates, so it is a twentieth of the place, but at most an eighth of the page.
"""


@dataclass(frozen=True, slots=True)
class Reads:
    """Read each task by itself."""


@dataclass(frozen=True, slots=True)
class OpenPage:
    """Read one page of the list of open tasks."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Read the list of ended tasks from its newest task, as far back as the waits go."""

    rows: int
    """Expected number of rows."""


Way = Reads | OpenPage | Ended


@dataclass(frozen=True, slots=True)
class Standing:
    """The open waits from the youngest due one downward, as far as they matter for the choice."""

    rank: int
    """Number of open waits that are younger than the first one."""
    due: Sequence[bool]
    """For each open wait from the youngest due one, youngest first: whether it is due now or soon."""
    proved: Sequence[bool]
    """For each of them: whether its task was seen open so lately that the list of ended tasks may postpone it."""
    ages: Sequence[float]
    """For each of them: its age in seconds."""
    status: str = "created"
    """The status in which these tasks were last seen."""


def sizes(largest: int) -> list[int]:
    """Return the numbers of tasks that a page may be requested with."""
    return [size for size in SIZES if size <= largest] or [largest]


def best_way(costs: Costs, standing: Standing, now: float) -> Way:
    """Return the cheapest way to check the first of these waits, per wait that it serves."""
    choices: list[tuple[float, int, Way]] = [(costs.read, 0, Reads())]
    listed = costs.open(standing.status)
    if listed.usable(now):
        choices += [
            (price, 1, page)
            for size in sizes(listed.largest)
            if (found := _open_page(costs, standing, size)) is not None
            for price, page in [found]
            if listed.usable(now, page.offset)
        ]
    if costs.ended.usable(now) and (ended := _ended(costs, standing, now)) is not None:
        choices.append((ended[0], 2, ended[1]))
    return min(choices, key=lambda choice: choice[:2])[2]


def _open_page(costs: Costs, standing: Standing, size: int) -> tuple[float, OpenPage] | None:
    """Return the price and place of a page of open tasks with the first wait near its top."""
    listed = costs.open(standing.status)
    share = listed.share(standing.rank)
    before = int(standing.rank / share)
    offset = max(0, before - max(LEAD, min(before // 20, size // 8)))
    reach = int((offset + size) * share) - standing.rank
    served = sum(standing.due[:reach]) if reach > 0 else 0
    if not served:
        return None
    # A page costs one read in addition if a task of it has ended.
    return listed.seconds(size, offset) / served, OpenPage(offset, size)


def _ended(costs: Costs, standing: Standing, now: float) -> tuple[float, Ended] | None:
    """Return the price of reading the list of ended tasks, down to the place where it is cheapest."""
    best: tuple[float, Ended] | None = None
    served = 0
    if not (standing.proved and standing.proved[0]):
        return None
    ages = list(takewhile(lambda age: costs.ended.shows(age, now), standing.ages))
    for place, age in enumerate(ages):
        served += standing.due[place] and standing.proved[place]
        last = place + 1 == len(ages)
        if not served or not (last or place + 1 in SIZES):
            continue
        rows = costs.ended.per_second * age
        if rows > MAX_ENDED_PAGES * MAX_PAGE_TASKS or not costs.ended.usable(now, math.ceil(rows)):
            break
        price = ended_seconds(costs, rows) / served
        if best is None or price < best[0]:
            best = price, Ended(math.ceil(rows))
    return best


def ended_seconds(costs: Costs, rows: float) -> float:
    """Return the expected duration of reading this many rows of the list of ended tasks."""
    seconds, offset = 0.0, 0
    for size in pages_of(rows):
        seconds += costs.ended.seconds(size, offset)
        offset += size
    return seconds


def pages_of(rows: float) -> list[int]:
    """Return the sizes of the pages that show this many rows and a few more."""
    sizes: list[int] = []
    left = rows + SIZES[0] / 2
    while left > 0 and len(sizes) < MAX_ENDED_PAGES:
        size = next((size for size in SIZES if size >= left), MAX_PAGE_TASKS)
        sizes.append(size)
        left -= size
    return sizes
