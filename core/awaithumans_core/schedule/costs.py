"""What requests cost the server: the durations measured lately, of single reads and of each list."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

READ_SECONDS = 0.004
"""Assumed duration of a single read before the first was measured."""
LIST_SECONDS = (0.010, 0.0001, 0.000002)
"""Assumed duration of a page before the first was measured: base, for each row, for each task of the offset."""
MIN_SECONDS = 0.0005
"""Minimum of a measured duration. A clock in steps may show none at all."""
OUTLIER = 5.0
"""A duration of more than this multiple of the estimate counts as that multiple."""
WEIGHT = 0.15
"""Weight of a new measurement of a single read."""
DECAY = 0.95
"""Weight that the measurements of a list keep at each new one."""
PRIOR_WEIGHT = 0.05
"""Weight of the assumed values of a list against its measurements. It decides what these do not show."""
FIRST_REST_SECONDS = 60.0
SLOW_SECONDS = 1.0
"""Duration above which a page is too slow on any server."""
SLOW_REST_SECONDS = 600.0
MAX_REST_SECONDS = 3600.0
"""How long a list is not used after it was refused or wrong, or was slow: doubled each time."""
MAX_PAGE_TASKS = 200
"""Maximum number of tasks on a page of a list: the server's limit."""
MAX_STATUSES = 20
"""Maximum number of statuses before the end whose lists are used. The API documents seven."""
HINTS = 8
"""Number of reads that follow hints of a list, after which the list is judged."""

_Vector = tuple[float, float, float]


class _Fit:
    """Decayed least squares for seconds = base + rows * per_row + offset * per_offset."""

    def __init__(self) -> None:
        self._scale: _Vector = (1.0, 100.0, 10_000.0)
        """Units of the three terms, so that they are of similar size."""
        self._squares = [[0.0] * 3 for _ in range(3)]
        self._products = [0.0] * 3
        self._values = LIST_SECONDS

    def seconds(self, rows: float, offset: float) -> float:
        base, per_row, per_offset = self._values
        return max(MIN_SECONDS, base + per_row * rows + per_offset * offset)

    def add(self, rows: float, offset: float, seconds: float) -> None:
        seconds = min(max(seconds, MIN_SECONDS), OUTLIER * self.seconds(rows, offset))
        terms = (1.0, rows / self._scale[1], offset / self._scale[2])
        for one in range(3):
            for other in range(3):
                self._squares[one][other] = DECAY * self._squares[one][other] + terms[one] * terms[other]
            self._products[one] = DECAY * self._products[one] + terms[one] * seconds
        self._solve()

    def _solve(self) -> None:
        prior = [value * scale for value, scale in zip(LIST_SECONDS, self._scale, strict=True)]
        matrix = [[*row, product] for row, product in zip(self._squares, self._products, strict=True)]
        for place in range(3):
            matrix[place][place] += PRIOR_WEIGHT
            matrix[place][3] += PRIOR_WEIGHT * prior[place]
        base, per_row, per_offset = (
            max(0.0, value) / scale for value, scale in zip(_solved(matrix), self._scale, strict=True)
        )
        self._values = base, per_row, per_offset


def _solved(matrix: list[list[float]]) -> list[float]:
    """Solve linear equations by elimination. The matrix is positive definite, so no pivot is zero."""
    size = len(matrix)
    for place in range(size):
        for below in range(place + 1, size):
            factor = matrix[below][place] / matrix[place][place]
            matrix[below] = [low - factor * high for low, high in zip(matrix[below], matrix[place], strict=True)]
    values = [0.0] * size
    for place in reversed(range(size)):
        rest = sum(matrix[place][after] * values[after] for after in range(place + 1, size))
        values[place] = (matrix[place][size] - rest) / matrix[place][place]
    return values


@dataclass(slots=True)
class ListCost:
    """One list of the server: what its pages cost, how many of its rows are ours, and whether it can be trusted."""

    per_second: float = 0.0
    """Rows of the list for each second of age, from the newest task. Only used for ended tasks."""
    largest: int = 25
    """Maximum number of tasks on a page. It grows while pages are light."""
    rests_until: float = float("-inf")
    rest: float = FIRST_REST_SECONDS
    deep_rests_until: float = float("-inf")
    deep_rest: float = SLOW_REST_SECONDS
    """The same for the pages below the first ones only, after one of them was slow."""
    right: int = 0
    wrong: int = 0
    """Hints that a single read confirmed, and that it did not."""
    _shown_since: float = float("-inf")
    _shown_until: float = float("-inf")
    """Until when no task that was created before this time is expected on the list."""
    _shares: dict[int, float] = field(default_factory=dict[int, float])
    """Share of the rows that belong to our waits, from the newest one down to a place, by the octave of the place.

    The octave is that of the number of our waits. The share differs between young and old tasks.
    """
    _fit: _Fit = field(default_factory=_Fit)

    def seconds(self, rows: float, offset: float = 0.0) -> float:
        """Return the expected duration of a page."""
        return self._fit.seconds(rows, offset)

    def took(self, rows: int, offset: int, seconds: float, next_size: int, costs: "Costs", now: float) -> None:
        """Record the duration of a page, and whether the next one may be larger.

        Args:
            rows: How many rows were requested.
            offset: From which place.
            seconds: Its duration.
            next_size: How many rows the next page may have, by the weight of this one.
            costs: What reads take. Pages that are dearer than reading their rows are not used for a while.
            now: The time.
        """
        self._fit.add(rows, offset, seconds)
        self.largest = next_size if next_size < rows else max(self.largest, next_size)
        dear = MAX_PAGE_TASKS * max(costs.read, MIN_SECONDS) if costs.reads else SLOW_SECONDS
        if seconds > min(dear, SLOW_SECONDS):
            self.slow(offset, now)
        elif _deep(offset):
            self.deep_rest = SLOW_REST_SECONDS

    def share(self, rank: float) -> float:
        """Return which share of the rows before the wait of this rank are ours. If unknown, places are too low."""
        nearest = min(self._shares, key=lambda known: abs(known - octave(rank)), default=None)
        return 1.0 if nearest is None else self._shares[nearest]

    def joined(self, ours: int, rows: int) -> None:
        """Record how many of the first rows of the list are ours."""
        self._shares[octave(ours)] = min(1.0, max(ours, 0.5) / max(rows, 1))

    def missed(self, rank: int, *, beyond: bool) -> None:
        """Record that a page around the estimated place of the wait of this rank showed none of ours.

        Args:
            rank: The number of our younger waits.
            beyond: Whether the page was empty, so that the place is further up. Otherwise it is further down.
        """
        self._shares[octave(rank)] = min(1.0, self.share(rank) * (2.0 if beyond else 0.5))

    def usable(self, now: float, offset: int = 0) -> bool:
        """Whether the list is used now, from this place."""
        return now >= (max(self.rests_until, self.deep_rests_until) if _deep(offset) else self.rests_until)

    def slow(self, offset: int, now: float) -> None:
        """Do not use pages like this one for a while. A slow page deep in the list does not concern the first ones."""
        if not self.usable(now, offset):
            return
        if _deep(offset):
            self.deep_rests_until = now + self.deep_rest
            self.deep_rest = min(2 * self.deep_rest, MAX_REST_SECONDS)
        else:
            self.failed(now, slow=True)

    def shows(self, age: float, now: float) -> bool:
        """Whether the list may go back to tasks of this age."""
        return now >= self._shown_until or now - age > self._shown_since

    def ended_at(self, age: float, now: float) -> None:
        """Record the age of the last task of the list. It may be cut short, so it shows nothing of older tasks."""
        self._shown_since, self._shown_until = now - age, now + FIRST_REST_SECONDS

    def failed(self, now: float, *, slow: bool = False) -> None:
        """Do not use the list for a while. It was refused, took too long, or is not in order."""
        self.rest = max(self.rest, SLOW_REST_SECONDS) if slow else self.rest
        self.rests_until, self.rest = now + self.rest, min(2 * self.rest, MAX_REST_SECONDS)
        self.right = self.wrong = 0

    def confirmed(self, now: float, *, right: bool) -> None:
        """Record what a single read showed of a task that the list did not show in its place."""
        self.right, self.wrong = self.right + right, self.wrong + (not right)
        if self.right + self.wrong >= HINTS:
            if self.wrong > 3 * self.right:
                self.failed(now)
            else:
                self.rest = FIRST_REST_SECONDS
            self.right = self.wrong = 0


class Costs:
    """The durations of all kinds of requests to one server."""

    def __init__(self) -> None:
        self.read = READ_SECONDS
        """Expected duration of a single read."""
        self.reads = 0
        """Number of single reads that were measured."""
        self.ended = ListCost()
        """The list of ended tasks."""
        self._open: dict[str, ListCost] = {}
        self._unused = ListCost(rests_until=float("inf"))

    def open(self, status: str) -> ListCost:
        """Return the list of the tasks in one status before the end."""
        if status not in self._open and len(self._open) >= MAX_STATUSES:  # a server that invents statuses
            return self._unused
        return self._open.setdefault(status, ListCost())

    def read_took(self, seconds: float) -> None:
        """Record the duration of a single read."""
        self.reads += 1
        seconds = min(max(seconds, MIN_SECONDS), OUTLIER * self.read)
        self.read += WEIGHT * (seconds - self.read)


def octave(number: float) -> int:
    """Return the number of times that a number is twice as large as 1. Below 1 it is 0."""
    return int(math.log2(max(number, 1.0)))


def _deep(offset: int) -> bool:
    """Whether a page from this place takes longer than the first ones, because the server counts the rows before it."""
    return offset > MAX_PAGE_TASKS


def in_order(created: Sequence[float]) -> bool:
    """Whether the creation times of a page's rows are newest first."""
    return all(younger >= older for younger, older in pairwise(created))
