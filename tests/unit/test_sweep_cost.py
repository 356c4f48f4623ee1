"""Cost of the sweep for the awaithumans server: only the checks that its schedule plans, over days.

The sweeper itself runs, on a clock that jumps, over a table in memory and a server that counts.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from pydantic_core import to_json

from awaithumans_core import Outcome, TaskClient, UnexpectedReplyError
from awaithumans_core.flow import Call, Flow, Reply
from awaithumans_core.schedule import (
    JITTER,
    MAX_CHECK_SECONDS,
    SHARE,
    Budget,
    interval,
)
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.store import Wait
from awaithumans_relay.sweep.meter import Meter
from awaithumans_relay.sweep.sweeper import Sweeper
from tests.support.time_travel import travel
from tests.support.waits_in_memory import ChecksInMemory, StoreInMemory, loop_time

HOUR, DAY, MONTH = 3600.0, 24 * 3600.0, 30 * 24 * 3600.0


class CountingServer(TaskClient):
    """A server that handles one request at a time. Each takes some time; without that of a page there is no list."""

    def __init__(self, checks: ChecksInMemory, read: float, page: float | None) -> None:
        self.looks: list[tuple[float, str]] = []
        self.pages: list[tuple[float, Mapping[str, Any]]] = []
        self.busy = 0.0
        self._process = asyncio.Lock()
        self.odd: set[str] = set()
        self.ends: dict[str, float] = {}
        """When tasks end, by id. The others stay open."""
        self.all = dict(checks.waits)
        self.ahead = 0.0
        """Seconds by which the server's clock is ahead."""
        self.spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows
        """What the server makes of the rows of a page, or an error."""
        self._checks = checks
        self._read = read
        self._page = page

    async def get(self, task_id: str) -> Outcome:
        self.looks.append((loop_time(), task_id))
        await self._work(self._read)
        if task_id in self.odd:
            raise UnexpectedReplyError("there is no task API at this address")
        return Outcome.model_validate(self._record(self.all[task_id]))

    async def _work(self, seconds: float) -> None:
        async with self._process:
            self.busy += seconds
            await asyncio.sleep(seconds)

    async def run(self, steps: Flow[Any], **_: Any) -> Any:
        call = next(steps)
        assert isinstance(call, Call)
        self.pages.append((loop_time(), call.params or {}))
        if self._page is None:
            raise UnexpectedReplyError("there is no list at this address")
        await self._work(self._page)
        try:
            steps.send(Reply(200, {}, to_json(self.spoil(self._listed(call.params or {})))))
        except StopIteration as end:
            return end.value
        raise AssertionError("a page takes one request")

    def _listed(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        newest_first = sorted(self.all.values(), key=lambda wait: -wait.created_at)
        status = "completed" if "terminal" in params else params["status"]
        rows = [record for wait in newest_first if (record := self._record(wait))["status"] == status]
        return rows[params["offset"] : params["offset"] + params["limit"]]

    def _record(self, wait: Wait) -> dict[str, Any]:
        ended = self.ends.get(wait.task_id, math.inf) <= loop_time()
        return {
            "id": wait.task_id,
            "idempotency_key": wait.task_id,
            "status": "completed" if ended else "created",
            "response": {"approved": True} if ended else None,
            "created_at": (BEGINNING + timedelta(seconds=wait.created_at + self.ahead)).isoformat(),
        }


BEGINNING = datetime(2031, 1, 1, tzinfo=UTC)


def served(
    ages: Sequence[float],
    seconds: float,
    *,
    read: float = 0.0,
    page: float | None = None,
    odd: int = 0,
    share: float = SHARE,
) -> CountingServer:
    """Sweep this many waits of these ages for this time; the first `odd` of them get odd replies."""

    async def story() -> CountingServer:
        store = StoreInMemory(ages)
        server = CountingServer(store.checks, read, page)
        server.odd = set(map(str, range(odd)))
        async with Sweeper(store, server, {}, on_answer=lambda: None, share=share).running():
            await asyncio.sleep(seconds)
        return server

    return travel(story())


def swept(ages: Sequence[float], seconds: float, **options: Any) -> list[tuple[float, str]]:
    """Return the reads of tasks without a list."""
    return served(ages, seconds, **options).looks


def planned(age: float, seconds: float) -> float:
    """Return how many checks the schedule plans for a wait of this age with mean jitter."""
    now = looks = pause = 0.0
    while now < seconds:
        pause = interval(age + now) * (1 - JITTER / 2)
        now += pause
        looks += 1
    return looks - (now - seconds) / pause


@pytest.fixture(scope="module")
def one_day() -> list[tuple[float, str]]:
    """The checks of 100 waits that were opened at one moment, during their first day."""
    return swept([0.0] * 100, DAY)


@pytest.mark.edges
def test_a_day_of_waiting_cost_the_planned_checks(one_day: list[tuple[float, str]]) -> None:
    """From the first second to the end of the day the number of checks is planned to within three percent."""
    looks = Counter(task_id for _, task_id in one_day)
    assert len(looks) == 100
    assert sum(looks.values()) == pytest.approx(100 * planned(0, DAY), rel=0.03)
    assert max(looks.values()) < 1.1 * planned(0, DAY)


@pytest.mark.edges
def test_waits_opened_together_spread_over_the_interval(one_day: list[tuple[float, str]]) -> None:
    """They are due together at first and evenly spread a day later."""
    quarters = Counter(int(at // 300) for at, _ in one_day if at >= DAY - 4 * HOUR)
    assert max(quarters.values()) < 1.75 * sum(quarters.values()) / 48


def test_twenty_thousand_waits_cost_the_planned_checks() -> None:
    """Waits of six hours to a month take a check every nine minutes each, which is 39 per second."""
    count, seconds = 20_000, 60
    ages = [6 * HOUR + (MONTH - 6 * HOUR) * number / count for number in range(count)]
    looks = [task_id for _, task_id in swept(ages, seconds)]
    assert len(looks) == pytest.approx(count * seconds / (MAX_CHECK_SECONDS * (1 - JITTER / 2)), rel=0.03)
    assert len(set(looks)) == len(looks)


def test_checks_keep_to_the_budget_in_turn() -> None:
    """Two hundred new waits would need 0.9 s of reads per second. They get 2 % of the time, each in turn."""
    server = served([0.0] * 200, 300, read=0.004)
    assert 0.9 <= server.busy / (SHARE * 360) <= 1.1
    counts = Counter(task_id for _, task_id in server.looks)
    assert len(counts) == 200
    assert max(counts.values()) - min(counts.values()) <= 2


def test_requests_shorter_than_expected_are_charged_in_full() -> None:
    """Each takes three seconds of the five that it was expected to take, and the debt of a request is limited."""

    async def story() -> int:
        shared = Budget.full(0.0)

        async def settle(share: float, spent: float) -> float:
            shared.refill(loop_time())
            shared.spend(spent)
            return shared.left

        async def claim_repeatedly() -> None:
            while True:
                await asyncio.sleep(1.0)
                await meter.wait_for_budget()

        meter, count = Meter(settle), 0
        async with beside(claims=claim_repeatedly()):
            while loop_time() < 900:
                await meter.wait_for_budget()
                with meter.request(5.0):
                    await asyncio.sleep(3.0)
                count += 1
        return count

    assert travel(story()) <= 900 / 60 + 2


def test_young_waits_do_not_starve_old_ones() -> None:
    """Two hundred new waits could use up the budget. A quarter of the checks is for the most overdue ones."""
    server = served([10 * HOUR] * 20 + [0.0] * 200, 600, read=0.01)
    old = Counter(task_id for _, task_id in server.looks if int(task_id) < 20)
    assert len(old) == 20


def test_odd_replies_of_some_tasks_delay_no_others() -> None:
    """45 unreadable tasks are read less and less, and 15 others as if these did not exist."""
    looks = Counter(task_id for _, task_id in swept([0.0] * 60, HOUR / 6, odd=45))
    others = [count for task_id, count in looks.items() if int(task_id) >= 45]
    assert len(others) == 15
    assert sum(others) == pytest.approx(15 * planned(0, HOUR / 6), rel=0.1)
    assert max(count for task_id, count in looks.items() if int(task_id) < 45) <= 20


def test_few_young_waits_share_a_page_each_second() -> None:
    """Fifty young waits cost one page a second and not fifty reads, and each is seen every second."""
    server = served([0.0] * 50, 15, read=0.003, page=0.008)
    assert len([at for at, _ in server.pages if at > 5]) <= 13
    assert len([at for at, _ in server.looks if at > 5]) <= 10
    assert server.busy <= 0.02 * 15 + 0.3
    seen = [at for at, params in server.pages if params["limit"] >= 50]
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 1.1


def test_old_waits_are_checked_by_pages_while_these_are_cheaper() -> None:
    """A page of two hundred tasks that costs ten reads replaces them, and one that costs a thousand does not."""
    ages = [HOUR * 10 + number for number in range(400)]
    cheap, dear = (served(ages, 900, read=0.003, page=page) for page in (0.03, 3.0))
    assert cheap.busy < dear.busy / 3
    assert len([at for at, _ in dear.pages]) <= 5
    assert len(dear.looks) == pytest.approx(400 * 900 / (MAX_CHECK_SECONDS * (1 - JITTER / 2)), rel=0.1)


def test_old_waits_are_checked_on_time_by_pages_of_open_tasks() -> None:
    """No task has ended, so the list of ended tasks shows nothing of them, and is hardly read."""
    server = served([HOUR + 0.5 * number for number in range(500)], 600, read=0.004, page=0.03)
    assert server.busy <= 0.005 * 600
    assert len(server.looks) <= 100
    assert len([at for at, params in server.pages if "terminal" in params]) <= 15


def test_reads_of_a_few_waits_do_not_replace_pages_of_many_older_ones() -> None:
    """Forty waits that lie far apart are read. Six hundred that lie close together are checked by pages."""
    ages = [*(1500.0 + 150 * number for number in range(40)), *(HOUR * 10 + number for number in range(600))]
    server = served(ages, HOUR / 6, read=0.003, page=0.03)
    reads = Counter(int(task_id) < 40 for _, task_id in server.looks)
    assert reads[True] > 50
    assert reads[False] < 25


# --- answers, with lists that work and others that do not


def answered(
    spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows,
    *,
    page: float = 0.008,
    ahead: float = 0.0,
) -> tuple[CountingServer, dict[str, tuple[float, float]]]:
    """Let people answer sixty questions within ten minutes. Return how long each took, and how late it was seen.

    Forty questions are new, the others an hour old.
    """
    chance = random.Random(7)  # noqa: S311 - when people answer
    ages = [*(0.1 * number for number in range(40)), *(HOUR + number for number in range(20))]

    async def story() -> tuple[CountingServer, dict[str, tuple[float, float]]]:
        store = StoreInMemory(ages)
        server = CountingServer(store.checks, 0.003, page)
        server.spoil, server.ahead = spoil, ahead
        server.ends = {str(number): chance.uniform(1, 600) for number in range(60)}
        async with Sweeper(store, server, {}, on_answer=lambda: None).running():
            await asyncio.sleep(900)
        late = {
            task_id: (at + ages[int(task_id)], store.intake.found[task_id] - at) for task_id, at in server.ends.items()
        }
        return server, late

    return travel(story())


@pytest.mark.parametrize("ahead", [0.0, HOUR, -HOUR], ids=["same clock", "server ahead", "server behind"])
def test_answers_are_seen_as_promised_whatever_the_servers_clock(ahead: float) -> None:
    """Each answer is seen within a second or 5 % of the person's time; creation times are compared to no clock."""
    server, late = answered(ahead=ahead)
    assert all(delay <= max(1.0, 0.05 * took) + 0.3 for took, delay in late.values())
    assert server.busy <= SHARE * (900 + 60)
