"""Cost of the sweep for the awaithumans server: only the checks that its schedule plans, over days.

The sweeper itself runs, on a clock that jumps, over a table in memory and a server that counts.
"""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from awaithumans_core import Outcome, Route, TaskClient, UnexpectedReplyError
from awaithumans_relay.store import Store, Wait, WaitState
from awaithumans_relay.store.schedule import AGE_SHARE, FIRST_CHECK_SECONDS, JITTER, MAX_CHECK_SECONDS, next_check
from awaithumans_relay.store.waits.due_for_check import Checks
from awaithumans_relay.store.waits.missing_tasks import MissingTasks
from awaithumans_relay.sweep.rate_limit import RateLimiter
from awaithumans_relay.sweep.sweeper import Sweeper
from tests.support.time_travel import travel

HOUR, DAY, MONTH = 3600.0, 24 * 3600.0, 30 * 24 * 3600.0


class ChecksInMemory(Checks):
    """Open waits in memory, each of its age and at a random moment between two checks."""

    def __init__(self, ages: Sequence[float]) -> None:
        self.clock = _loop_time
        self._due: list[tuple[float, int, Wait]] = []
        self._put_off: dict[str, float] = {}
        chance = random.Random(5)  # noqa: S311 - spreads waits, guards nothing
        for number, age in enumerate(ages):
            check = next_check(now=0.0, created_at=-age, deadline_at=MONTH) * (chance.random() if age else 1.0)
            created, deadline = -age, MONTH
            self._due.append((check, number, _wait(number, created, deadline, check)))
        heapq.heapify(self._due)

    async def claim(self, limit: int) -> list[Wait]:
        now, found = self.clock(), list[Wait]()
        while self._due and self._due[0][0] <= now and len(found) < limit:
            check, number, wait = self._due[0]
            later = next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at)
            if (put_off := self._put_off.pop(wait.task_id, 0.0)) > now:
                heapq.heapreplace(self._due, (put_off, number, wait))
                continue
            heapq.heapreplace(self._due, (later, number, wait))
            found.append(_wait(number, wait.created_at, wait.deadline_at, check))
        return found

    async def postpone(self, missed: Sequence[Wait], seconds: float) -> None:
        self._put_off |= {wait.task_id: self.clock() + seconds for wait in missed}

    async def oldest_open(self) -> float | None:
        return None


class NoMissingTasks(MissingTasks):
    """The record of a server that knows every task."""

    async def any(self) -> bool:
        return False


class StoreInMemory(Store):
    """A store of open waits in memory, on the event loop's clock. Its database is never opened."""

    def __init__(self, ages: Sequence[float]) -> None:
        super().__init__("sqlite:///never-opened.db", clock=_loop_time)
        self.checks = ChecksInMemory(ages)
        self.missing_tasks = NoMissingTasks(self.database, _loop_time)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _wait(number: int, created: float, deadline: float, check: float) -> Wait:
    return Wait(
        task_id=str(number),
        route=Route("nobody", {}, str(number)),
        state=WaitState.OPEN,
        created_at=created,
        deadline_at=deadline,
        next_check_at=check,
        outcome=None,
        found_by=None,
        answered_at=None,
        attempts=0,
        not_ready_since=None,
        delivered_at=None,
        redriven_at=None,
        last_error=None,
    )


class CountingServer(TaskClient):
    """Every task is open, always."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, str]] = []
        self._open = Outcome(task_id="", status="created")
        self.odd: set[str] = set()

    async def get(self, task_id: str) -> Outcome:
        self.looks.append((asyncio.get_running_loop().time(), task_id))
        if task_id in self.odd:
            raise UnexpectedReplyError("there is no task API at this address")
        return self._open


def swept(
    ages: Sequence[float], seconds: float, *, per_second: float = 1000.0, burst: int = 500, odd: int = 0
) -> list[tuple[float, str]]:
    """Return the checks of this many waits of these ages in this time; the first `odd` of them get odd replies."""

    async def story() -> list[tuple[float, str]]:
        store, server = StoreInMemory(ages), CountingServer()
        server.odd = set(map(str, range(odd)))
        async with Sweeper(
            store, server, {}, on_answer=lambda: None, rate_limiter=RateLimiter(per_second, burst)
        ).running():
            await asyncio.sleep(seconds)
        return server.looks

    return travel(story())


def planned(age: float, seconds: float) -> float:
    """Return how many checks the schedule plans for a wait of this age with mean jitter."""
    now = looks = 0.0
    while now < seconds:
        interval = min(max(FIRST_CHECK_SECONDS, AGE_SHARE * (age + now)), MAX_CHECK_SECONDS)
        now += interval * (1 - JITTER / 2)
        looks += 1
    return looks - (now - seconds) / interval


@pytest.fixture(scope="module")
def two_days() -> list[tuple[float, str]]:
    """The checks of 100 waits that were opened at one moment, during their first two days."""
    return swept([0.0] * 100, 2 * DAY)


@pytest.mark.edges
def test_two_days_of_waiting_cost_the_planned_checks(two_days: list[tuple[float, str]]) -> None:
    """From the first second to the end of the second day the number of checks is planned to within three percent."""
    looks = Counter(task_id for _, task_id in two_days)
    assert len(looks) == 100
    assert sum(looks.values()) == pytest.approx(100 * planned(0, 2 * DAY), rel=0.03)
    assert max(looks.values()) < 1.1 * planned(0, 2 * DAY)


def test_waits_opened_together_spread_over_the_interval(two_days: list[tuple[float, str]]) -> None:
    """They are due together at first and evenly spread two days later."""
    quarters = Counter(int(at // 300) for at, _ in two_days if at >= 2 * DAY - 4 * HOUR)
    assert max(quarters.values()) < 1.75 * sum(quarters.values()) / 48


def test_sixty_thousand_waits_cost_the_planned_checks() -> None:
    """Waits of six hours to a month take a check every nine minutes each, which is 117 per second."""
    count, seconds = 60_000, 60
    ages = [6 * HOUR + (MONTH - 6 * HOUR) * number / count for number in range(count)]
    looks = [task_id for _, task_id in swept(ages, seconds)]
    assert len(looks) == pytest.approx(count * seconds / (MAX_CHECK_SECONDS * (1 - JITTER / 2)), rel=0.03)
    assert len(set(looks)) == len(looks)


def test_checks_keep_to_the_rate_limit_in_order() -> None:
    """5,000 new waits need 1,000 checks per second and get 50, the longest due first, each in turn."""
    looks = swept([0.0] * 5000, 300, per_second=50, burst=25)
    assert len(looks) <= 300 * 50 + 50
    assert len(looks) >= 290 * 50
    a_second = Counter(int(at) for at, _ in looks)
    assert max(a_second.values()) <= 50 + 25 + 1
    counts = Counter(task_id for _, task_id in looks)
    assert len(counts) == 5000
    assert max(counts.values()) - min(counts.values()) <= 1


def test_odd_replies_of_some_tasks_delay_no_others() -> None:
    """304 unreadable tasks are read less and less, and 100 others as if these did not exist."""
    looks = Counter(task_id for _, task_id in swept([0.0] * 404, HOUR / 2, odd=304))
    others = [count for task_id, count in looks.items() if int(task_id) >= 304]
    assert len(others) == 100
    assert sum(others) == pytest.approx(100 * planned(0, HOUR / 2), rel=0.1)
    assert max(count for task_id, count in looks.items() if int(task_id) < 304) <= 20
