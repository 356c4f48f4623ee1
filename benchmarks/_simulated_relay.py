"""A relay with many open waits on a virtual clock, and the people who answer.

The schedule, the budget, the costs, the order and the choice of ways are those of `awaithumans_core.schedule` itself.
The server is a model: what its requests take, and which open tasks a page shows.
"""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from awaithumans_core.schedule import (
    AGE_SHARE,
    FIRST_CHECK_SECONDS,
    JITTER,
    MAX_CHECK_SECONDS,
    SOON_SHARE,
    YOUNG_SECONDS,
    Budget,
    Costs,
    Ended,
    ListCost,
    OpenPage,
    Reads,
    Standing,
    best_way,
    first_to_check,
    interval,
    promised,
)
from awaithumans_core.schedule.costs import MAX_PAGE_TASKS, octave
from awaithumans_core.schedule.times import PROBE_BACKOFF
from awaithumans_core.schedule.ways import pages_of
from awaithumans_relay.sweep.lists import MAX_CHOICES, MAX_NEIGHBOURS, READS_SECONDS
from awaithumans_relay.sweep.meter import STALE_SECONDS
from awaithumans_relay.sweep.sweeper import CLAIM_SECONDS, MAX_CHECKS, MIN_TICK_SECONDS, TICK_SECONDS

DAY = 24 * 3600.0

MAIL_SHARE = 1 / 3
"""Share of the answers that are not called back."""
NEVER_SHARE = 1 / 4
"""Share of the questions that nobody answers. They time out, and the server calls back."""
TIMEOUT_SECONDS = 30 * DAY
MEDIAN_SECONDS, SPREAD = 2 * 3600.0, 2.2
"""The times of the others have a lognormal distribution."""
CALLBACK_SECONDS = (0.5, 5.0)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ServerCosts:
    """What requests take, in seconds: a read; a page, each of its rows, each task of its offset."""

    read: float
    page: float
    row: float
    offset: float

    def of_page(self, rows: int, offset: int) -> float:
        """Return the duration of a page."""
        return self.page + self.row * rows + self.offset * offset


@dataclass
class Simulated:
    """The result of a simulation."""

    waits: int
    seconds: float = 0.0
    ages: list[float] = field(default_factory=list[float])
    """Ages of the open waits at the end."""
    delays: list[float] = field(default_factory=list[float])
    """Seconds from each answer until it was seen, by callback or check."""
    mailed: list[float] = field(default_factory=list[float])
    """The delays of the answers that are not called back."""
    beyond: int = 0
    """How many were seen later than promised."""
    spent: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds of all requests, by kind and by the age of the first wait that is served."""
    requests: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def busy(self) -> float:
        """The share of the time that requests took."""
        return sum(self.spent.values()) / self.seconds


def person_seconds(count: int, chance: np.random.Generator) -> Floats:
    """Return after how long each of these questions ends."""
    took = np.minimum(chance.lognormal(math.log(MEDIAN_SECONDS), SPREAD, count), TIMEOUT_SECONDS)
    return np.where(chance.random(count) < NEVER_SHARE, TIMEOUT_SECONDS, took)


def steady(count: int, chance: np.random.Generator) -> tuple[Floats, Floats]:
    """Return ages and whole durations of the open questions of a service that has run for long."""
    pool = person_seconds(20 * count, chance)
    took = pool[np.searchsorted(np.cumsum(pool), chance.random(count) * pool.sum())]
    return took * chance.random(count), took


class SimulatedRelay:
    """Open waits, oldest first. Each one that ends is replaced by a new one."""

    def __init__(
        self,
        ages: Floats,
        took: Floats | None,
        costs: ServerCosts,
        share: float,
        *,
        ours: float = 1.0,
        ended_per_second: float = 0.17,
        seed: int = 1,
    ) -> None:
        self._chance = np.random.default_rng(seed)
        self._server, self._ours, self._ended_per_second = costs, ours, ended_per_second
        order = np.argsort(-ages)
        count = len(ages)
        self.created: Floats = -ages[order]
        self.ends: Floats = np.full(count, math.inf) if took is None else self.created + took[order]
        self.next: Floats = intervals(ages[order]) * self._chance.random(count)
        self.listed: Floats = np.full(count, -math.inf)
        self.mailed = self._chance.random(count) < MAIL_SHARE
        self._callbacks: list[tuple[float, float]] = []
        for at, created, mailed in zip(self.ends, self.created, self.mailed, strict=True):
            self._plan_callback(created, at, mailed=mailed)
        heapq.heapify(self._callbacks)
        self._replace = took is not None
        self._budget = Budget.full(0.0, share)
        self._costs = Costs()
        self._total = 0.0
        self._reads_until: dict[int, float] = {}
        self.now = 0.0
        self.result = Simulated(count)

    def _plan_callback(self, created: float, ends: float, *, mailed: bool) -> None:
        if math.isinf(ends) or (mailed and ends - created < TIMEOUT_SECONDS):
            return
        heapq.heappush(self._callbacks, (ends + self._chance.uniform(*CALLBACK_SECONDS), created))

    def run(self, seconds: float, outage: tuple[float, float] = (math.inf, math.inf)) -> Simulated:
        """Simulate this time. The server is down during the outage."""
        until, began = self.now + seconds, self.now
        while self.now < until:
            if outage[0] <= self.now < outage[1]:
                # No task ends during the outage. Those that were to end then do so within an hour after it.
                late = self.ends < outage[1]
                self.ends[late] = outage[1] + self._chance.random(int(late.sum())) * 3600
                self._callbacks = []
                for at, created, mailed in zip(self.ends, self.created, self.mailed, strict=True):
                    self._plan_callback(created, at, mailed=mailed)
                self.now = outage[1] + PROBE_BACKOFF.most
            while self._callbacks and self._callbacks[0][0] <= self.now:
                at, created = heapq.heappop(self._callbacks)
                place = int(np.searchsorted(self.created, created))
                if place < len(self.created) and self.created[place] == created:
                    self._found(np.array([place]), at)
            self._budget.refill(self.now)
            if (pause := self._budget.wait()) > 0:
                self.now += min(pause, STALE_SECONDS)
            elif (soonest := self.next.min()) > self.now:
                self.now += min(TICK_SECONDS, max(MIN_TICK_SECONDS, soonest - self.now))
            else:
                self._claim()
        self.result.seconds += self.now - began
        self.result.ages = [float(age) for age in self.now - self.created]
        return self.result

    # --- the sweep

    def _claim(self) -> None:
        limit = min(max(1, int(self._budget.left / self._costs.read)), MAX_CHECKS)
        due = np.flatnonzero(self.next <= self.now)
        overdue = due[np.argpartition(self.next[due], limit)[:limit]] if len(due) > limit else due
        overdue = overdue[np.argsort(self.next[overdue])]
        young = due[self.now - self.created[due] < YOUNG_SECONDS]
        young = young[np.argsort(self.next[young])][:limit]
        old = overdue[~np.isin(overdue, young)]
        claimed = np.sort(first_to_check(young.tolist(), old.tolist(), limit))[::-1]  # youngest first
        self.next[claimed] = self.now + intervals(self.now - self.created[claimed]) * (
            1 - self._chance.random(len(claimed)) * JITTER
        )
        began = self._total
        ages = self.now - self.created[claimed]
        reads = list[float]()
        is_young = intervals(ages) < 60
        for group, young_ones in ((claimed[is_young], True), (claimed[~is_young], False)):
            reads += self._serve(self.created[group], young=young_ones)
        for created in reads:
            self._read(created)
        self.now += max(CLAIM_SECONDS, self._total - began)

    def _serve(self, left: Floats, *, young: bool) -> list[float]:
        """Check these waits, by their times, with pages if that is cheaper, and return those that are to be read."""
        reads = list[float]()
        for _ in range(MAX_CHOICES):
            if not young:
                until = np.array([self._reads_until.get(octave(self.now - each), -math.inf) for each in left])
                reads += list(left[self.now < until])
                left = left[self.now >= until]
            if not len(left):
                break
            first = self._place(left[0])
            top = max(0, first + 1 - MAX_NEIGHBOURS)
            places = np.arange(first, top - 1, -1)  # youngest first
            soon = self.now + SOON_SHARE * interval(self.now - left[0])
            due = (self.next[places] <= soon) | np.isin(self.created[places], left)
            rank = len(self.created) - 1 - first
            ages = self.now - self.created[places]
            proved = self.now - self.listed[places] <= MAX_CHECK_SECONDS - intervals(ages)
            way = best_way(self._costs, Standing(rank, due.tolist(), proved.tolist(), ages.tolist()), self.now)
            if isinstance(way, Reads):
                if young:
                    break
                self._reads_until[octave(self.now - left[0])] = self.now + READS_SECONDS
                continue
            if isinstance(way, OpenPage):
                left = self._open_page(way, left, reads)
            else:
                left = self._ended(way, left, places[due & proved])
        return reads + list(left)

    def _place(self, created: float) -> int:
        return int(np.searchsorted(self.created, created))

    def _spend(self, kind: str, age: float, seconds: float) -> None:
        of_age = next(name for name, bound in AGE_CLASSES.items() if age < bound)
        self.result.spent[f"{kind}, {of_age}"] = self.result.spent.get(f"{kind}, {of_age}", 0.0) + seconds
        self.result.requests[kind] = self.result.requests.get(kind, 0) + 1
        self._budget.spend(seconds)
        self._total += seconds

    def _page(self, listed: ListCost, kind: str, age: float, rows: int, offset: int) -> int:
        rows = min(rows, listed.largest)
        seconds = self._server.of_page(rows, offset)
        self._spend(kind, age, seconds)
        listed.took(rows, offset, seconds, min(MAX_PAGE_TASKS, 2 * rows), self._costs, self.now)
        return rows

    def _open_page(self, way: OpenPage, left: Floats, reads: list[float]) -> Floats:
        listed = self._costs.open("created")
        size = self._page(listed, "open page", self.now - left[0], way.size, way.offset)
        count = len(self.created)
        youngest = count - 1 - round(way.offset * self._ours)
        oldest = max(0, count - round((way.offset + size) * self._ours))
        if youngest < oldest:
            return left[1:]
        shown = np.arange(oldest, youngest + 1)
        middle = (oldest + youngest) // 2
        younger = count - 1 - middle
        listed.joined(younger + 1, round(younger / self._ours) + 1)
        absent = shown[self.ends[shown] <= self.now]
        seen = shown[self.ends[shown] > self.now]
        share = 1 - self._chance.random() * JITTER
        due = intervals(self.now - self.created[seen])
        self.next[seen] = self.now + due * share
        self.listed[seen] = self.now
        lowest, highest = float(self.created[oldest]), float(self.created[youngest])
        reads += list(self.created[absent])
        after: Floats = left[(left < lowest) | (left > highest)]
        if len(after) and after[0] == left[0]:
            reads.append(float(after[0]))
            after = after[1:]
        return after

    def _ended(self, way: Ended, left: Floats, served: npt.NDArray[np.intp]) -> Floats:
        offset = 0
        for rows in pages_of(way.rows):
            offset += self._page(self._costs.ended, "ended page", self.now - left[0], rows, offset)
        reached = offset / self._ended_per_second
        self._costs.ended.per_second = self._ended_per_second
        oldest = self.now - reached
        served = served[self.created[served] > oldest]
        share = 1 - self._chance.random() * JITTER
        self.next[served] = self.now + intervals(self.now - self.created[served]) * share
        after: Floats = left[~np.isin(left, self.created[served])]
        younger = self._place(oldest)
        ended = younger + np.flatnonzero(self.ends[younger:] <= self.now)
        self._found(ended, self.now)
        return after

    def _read(self, created: float) -> None:
        place = self._place(created)
        if place == len(self.created) or self.created[place] != created:
            return  # found meanwhile
        self._spend("read", self.now - created, self._server.read)
        self._costs.read_took(self._server.read)
        if self.ends[place] <= self.now:
            self._found(np.array([place]), self.now)

    def _found(self, places: npt.NDArray[np.intp], at: float) -> None:
        """Record answers, and replace their waits by new ones."""
        if not len(places):
            return
        took = self.ends[places] - self.created[places]
        for seconds, ended, mailed in zip(took, self.ends[places], self.mailed[places], strict=True):
            if seconds >= TIMEOUT_SECONDS:
                continue
            delay = max(0.0, at - ended)
            self.result.delays.append(delay)
            if mailed:
                self.result.mailed.append(delay)
            self.result.beyond += delay > promised(seconds) + 1.0
        keep = np.ones(len(self.created), dtype=bool)
        keep[places] = False
        new = len(places) if self._replace else 0
        created: Floats = max(self.now, float(self.created[-1])) + 1e-4 * np.arange(1, new + 1, dtype=np.float64)
        ends = created + person_seconds(new, self._chance)
        mailed_ones = self._chance.random(new) < MAIL_SHARE
        self.created = np.concatenate([self.created[keep], created])
        self.ends = np.concatenate([self.ends[keep], ends])
        self.mailed = np.concatenate([self.mailed[keep], mailed_ones])
        self.next = np.concatenate([self.next[keep], created + FIRST_CHECK_SECONDS])
        self.listed = np.concatenate([self.listed[keep], np.full(new, -math.inf)])
        for one, end, mailed in zip(created, ends, mailed_ones, strict=True):
            self._plan_callback(float(one), float(end), mailed=bool(mailed))


AGE_CLASSES = {"< 1 min": 60.0, "< 20 min": 1200.0, "< 4 h": 4 * 3600.0, "< 1 day": DAY, "older": math.inf}
"""Classes of ages for the report."""


def intervals(ages: Floats) -> Floats:
    """Return the seconds between two checks of waits of these ages, as `schedule.interval` does for one."""
    return np.clip(AGE_SHARE * ages, FIRST_CHECK_SECONDS, MAX_CHECK_SECONDS)
