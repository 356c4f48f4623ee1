"""Faults of the server's lists and clock: a relay and a batch lose no answer, and do not flood the server.

Both run on a clock that jumps, with the same twelve questions, and one server that counts its requests.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from awaithumans_core import HumanTask, Outcome, TaskClient
from awaithumans_core.batch import Batch
from awaithumans_core.flow import Call, Flow, Lost, Patience, Reply, get
from awaithumans_core.schedule import MAX_CHECK_SECONDS, SHARE
from awaithumans_relay.sweep.sweeper import Sweeper
from tests.support.time_travel import travel
from tests.support.waits_in_memory import StoreInMemory, loop_time
from tests.unit.scripted import driven, reply

R = TypeVar("R")
Rows = list[dict[str, Any]]

BEGINNING = datetime(2031, 1, 1, tzinfo=UTC)
HOUR, DAY = 3600.0, 24 * 3600.0
QUESTIONS = 12
SECONDS = 160.0
"""How long the questions are watched. People answer within the first two minutes."""
READ, PAGE = 0.006, 0.012
"""Seconds that a read and a page take."""
ROUND = QUESTIONS * READ / SHARE
"""Seconds in which the budget allows to read each task once."""


class Decision(BaseModel):
    number: int


@dataclass
class Server:
    """A server in memory that answers calls, and counts what it does."""

    ends: dict[str, float]
    """When tasks end, by id. The others stay open."""
    ahead: Callable[[float], float] = lambda now: 0.0
    """Seconds by which its clock is ahead when a task is created."""
    spoil: Callable[[Rows, Call], object] = lambda rows, call: rows
    """What the server makes of the rows of a page."""
    trouble: Callable[[Call], Reply | Lost | None] = lambda call: None
    """A reply to a call in place of the usual one."""
    page_seconds: float = PAGE
    ended_seconds: float | None = None
    """Seconds that a page of ended tasks takes, if that differs."""
    status: Callable[[str], str] = lambda task_id: "created"
    """The status of an open task."""
    hanging: str | None = None
    """The task whose reads hang."""
    created: dict[str, float] = field(default_factory=dict[str, float])
    reads: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    pages: list[float] = field(default_factory=list[float])
    ended_pages: int = 0
    busy: float = 0.0
    """Seconds of all reads and pages."""

    async def run(
        self,
        steps: Flow[R],
        *,
        on_status: Callable[[Outcome], None] | None = None,
        slots: asyncio.Semaphore | None = None,
    ) -> R:
        return await driven(steps, self.answer, asyncio.sleep, slots=slots)

    async def answer(self, call: Call) -> Reply | Lost:
        task_id, _, below = call.url.removeprefix("/api/tasks").removeprefix("/").partition("/")
        listed = call.method == "GET" and not task_id
        if listed:
            self.pages.append(loop_time())
            ended = "terminal" in (call.params or {})
            seconds = self.ended_seconds if ended and self.ended_seconds is not None else self.page_seconds
            self.ended_pages += ended
        else:
            seconds = math.inf if task_id == self.hanging else READ
            if call.method == "GET" and not below:
                self.reads.append((loop_time(), task_id))
        self.busy += seconds if seconds < math.inf else 0.0
        await asyncio.sleep(min(seconds, call.timeout))
        if seconds > call.timeout:
            return Lost("ReadTimeout")
        if (trouble := self.trouble(call)) is not None:
            return trouble
        if call.method == "POST" and not task_id:
            task_id = str((call.json or {})["idempotency_key"])
            self.created.setdefault(task_id, loop_time())
            return reply(201, self.record(task_id) | dict(call.json or {}))
        if listed:
            spoilt = self.spoil(self._rows(call), call)
            return spoilt if isinstance(spoilt, Reply) else reply(200, spoilt)
        if below == "poll":
            left = self.ends.get(task_id, math.inf) - loop_time()
            await asyncio.sleep(max(0.0, min(left, float((call.params or {})["timeout"]))))
        return reply(200, self.record(task_id))

    def _rows(self, call: Call) -> Rows:
        """Return the rows of a page, newest first by creation."""
        params = call.params or {}
        newest = sorted(self.created, key=lambda task_id: (-self.created[task_id], -int(task_id)))
        wanted = "completed" if "terminal" in params else params["status"]
        rows = [record for task_id in newest if (record := self.record(task_id))["status"] == wanted]
        return rows[params["offset"] : params["offset"] + params["limit"]]

    def record(self, task_id: str) -> dict[str, Any]:
        ended, created = self.ends.get(task_id, math.inf) <= loop_time(), self.created[task_id]
        return {
            "id": task_id,
            "idempotency_key": task_id,
            "payload": {"secret": task_id},
            "status": "completed" if ended else self.status(task_id),
            "response": {"number": int(task_id)} if ended else None,
            "created_at": (BEGINNING + timedelta(seconds=created + self.ahead(created))).isoformat(),
        }


Watch = Callable[[Server, float], Coroutine[Any, Any, dict[str, float]]]
"""Ask one question for each task of the server, and return when each answer was seen, within some seconds."""


class _Client(TaskClient):
    def __init__(self, server: Server) -> None:
        self._server = server

    async def get(self, task_id: str) -> Outcome:
        return await self._server.run(get(task_id, Patience(0)))

    async def run(self, steps: Flow[Any], **_: Any) -> Any:
        return await self._server.run(steps)


async def relay(server: Server, seconds: float) -> dict[str, float]:
    store = StoreInMemory([0.0] * len(server.ends))
    server.created = dict.fromkeys(map(str, range(len(server.ends))), 0.0)
    async with Sweeper(store, _Client(server), {}, on_answer=lambda: None).running():
        await asyncio.sleep(seconds)
    assert all(outcome.response == {"number": int(task_id)} for task_id, outcome in store.intake.outcomes.items())
    return store.intake.found


class _Clock:
    now = staticmethod(loop_time)
    sleep = staticmethod(asyncio.sleep)

    def sleep_sync(self, seconds: float) -> None:
        raise NotImplementedError


async def batch(server: Server, seconds: float) -> dict[str, float]:
    asked = [
        HumanTask(task="Question?", response_schema=Decision, idempotency_key=str(number), timeout_seconds=30 * DAY)
        for number in range(len(server.ends))
    ]
    seen: dict[str, float] = {}

    async def watch() -> None:
        async with aclosing(Batch(server.run, _Clock(), 3).answers(asked)) as answers:
            async for place, answer in answers:
                assert answer.result() == Decision(number=place)
                seen[str(place)] = loop_time()

    watching = asyncio.create_task(watch())
    await asyncio.wait([watching], timeout=seconds)
    if watching.done():
        watching.result()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return seen


both = pytest.mark.parametrize("watch", [relay, batch])


def answered(server: Server, watch: Watch, seconds: float = SECONDS) -> dict[str, tuple[float, float]]:
    """Return how long each person took, and how late the answer was seen. Every answer must be seen."""
    random.seed(11)  # the jitter of the schedule
    seen = travel(watch(server, seconds))
    expected = {task_id for task_id, end in server.ends.items() if end < seconds}
    assert seen.keys() == expected
    return {task_id: (server.ends[task_id], seen[task_id] - server.ends[task_id]) for task_id in expected}


def in_two_minutes() -> dict[str, float]:
    chance = random.Random(7)  # noqa: S311 - when people answer
    return {str(number): chance.uniform(1, 120) for number in range(QUESTIONS)}


def refused(rows: Rows, call: Call) -> object:
    return reply(403, {"detail": "Operator access required."})


def shuffled(rows: Rows, call: Call) -> object:
    return random.Random(len(rows)).sample(rows, len(rows))  # noqa: S311


def of_others(rows: Rows, call: Call) -> object:
    """Rows of other tasks with our keys: they are not our questions."""
    return [{**row, "id": f"other-{row['id']}", "response": {"number": -1}, "status": "completed"} for row in rows]


def hides_answers(rows: Rows, call: Call) -> object:
    return [{**row, "payload": "[redacted]", "response": None} for row in rows]


def promised(late: dict[str, tuple[float, float]], slack: float) -> bool:
    """Whether each answer was seen within a second or 5 % of the person's time, and this slack."""
    return all(delay <= max(1.0, 0.05 * took) + slack for took, delay in late.values())


ANCIENT = {"id": "ancient", "idempotency_key": "ancient", "status": "cancelled", "created_at": "2001-01-01T00:00:00Z"}
"""A task that ended long ago."""

BAD_LISTS: dict[str, Callable[[Rows, Call], object]] = {
    "forbidden": refused,
    "empty": lambda rows, call: [],
    "shuffled": shuffled,
    "fewer rows than requested": lambda rows, call: rows[: len(rows) // 2],
    "repeats rows": lambda rows, call: [row for row in rows for _ in range(3)],
    "hides every third row": lambda rows, call: [row for row in rows if int(row["id"]) % 3],
    "rows of other keys": lambda rows, call: [{**row, "idempotency_key": "another"} for row in rows],
    "rows of other tasks with the same keys": of_others,
    "redacted payloads and responses": hides_answers,
    "rows that cannot be read": lambda rows, call: [1, None, {"id": 7}, *({"id": row["id"]} for row in rows)],
    "an envelope with a wrong total": lambda rows, call: {"items": rows, "total": 10**9, "next": "/api/tasks?offset=1"},
    "no list": lambda rows, call: reply(200, b"<html>", content_type="text/html"),
    "too large": lambda rows, call: Reply(200, {}, b"", cut=True),
}


@both
@pytest.mark.parametrize("spoil", BAD_LISTS.values(), ids=BAD_LISTS)
def test_bad_list_loses_no_answer_and_costs_no_more(spoil: Callable[[Rows, Call], object], watch: Watch) -> None:
    """Tasks are read instead, in turn, and all requests stay within the budget."""
    server = Server(in_two_minutes(), spoil=spoil)
    late = answered(server, watch)
    assert promised(late, ROUND + 3)
    assert server.busy <= SHARE * (SECONDS + 60) + QUESTIONS * READ
    assert len(server.pages) <= 150


@both
def test_list_that_ignores_its_parameters_loses_no_answer(watch: Watch) -> None:
    """Each page shows all tasks, open and ended, whatever was requested."""
    server = Server(in_two_minutes())
    server.spoil = lambda rows, call: [server.record(task_id) for task_id in sorted(server.created, key=int)[::-1]]
    assert promised(answered(server, watch), ROUND + 3)
    assert server.busy <= SHARE * (SECONDS + 60) + QUESTIONS * READ


@both
def test_list_that_takes_half_a_minute_is_asked_a_few_times(watch: Watch) -> None:
    """The client gives it up after five seconds, which delay the checks of that moment only."""
    server = Server(in_two_minutes(), page_seconds=30.0)
    assert promised(answered(server, watch), ROUND + 8)
    assert len(server.pages) <= 4
    assert len(server.reads) * READ <= SHARE * (SECONDS + 60)


CLOCKS: dict[str, Callable[[float], float]] = {
    "server ahead": lambda now: HOUR,
    "server behind": lambda now: -HOUR,
    "server set forward": lambda now: HOUR if now > 1 else 0.0,
    "server set back": lambda now: -HOUR if now > 1 else 0.0,
}


@both
@pytest.mark.parametrize("ahead", CLOCKS.values(), ids=CLOCKS)
def test_answers_are_seen_as_promised_whatever_the_clock_of_the_server(
    ahead: Callable[[float], float], watch: Watch
) -> None:
    """Creation times are compared with no clock of ours."""
    server = Server(in_two_minutes(), ahead=ahead)
    assert promised(answered(server, watch), 3.0)
    assert server.busy <= SHARE * (SECONDS + 60) + QUESTIONS * READ


@both
def test_server_on_another_database_ends_no_question(watch: Watch) -> None:
    """For some minutes the server knows none of the tasks. Afterwards every answer is seen."""
    server = Server(in_two_minutes())

    def unknown(call: Call) -> Reply | None:
        if not 30 < loop_time() < 80 or call.method == "POST":
            return None
        return reply(200, []) if call.url == "/api/tasks" else reply(404, {"error": "TASK_NOT_FOUND"})

    server.trouble = unknown
    late = answered(server, watch, 300.0)
    assert promised({task_id: at for task_id, at in late.items() if at[0] < 25}, 3.0)
    meanwhile = [when for when in (*server.pages, *(at for at, _ in server.reads)) if 30 < when < 80]
    assert len(meanwhile) <= 5 * QUESTIONS


@both
@pytest.mark.parametrize("trouble", [Lost("ConnectError: refused"), reply(503, b"")], ids=["lost", "503"])
def test_outage_floods_no_server(trouble: Reply | Lost, watch: Watch) -> None:
    """While the server is unreachable it is asked now and then, and every answer is seen soon afterwards."""
    server = Server(in_two_minutes())
    server.trouble = lambda call: trouble if 30 < loop_time() < 100 else None
    late = answered(server, watch)
    assert promised({task_id: at for task_id, at in late.items() if not 25 < at[0] < 100}, ROUND + 30)
    assert all(at + delay < 100 + 30 for at, delay in late.values() if 25 < at < 100)
    meanwhile = [when for when in (*server.pages, *(at for at, _ in server.reads)) if 30 < when < 100]
    assert len(meanwhile) <= 60


@both
def test_no_task_is_starved_while_the_budget_is_short(watch: Watch) -> None:
    """A hundred new questions without a list would need a hundred reads each second. They are read in turn."""
    server = Server({str(number): math.inf for number in range(100)}, spoil=refused)
    answered(server, watch, 120.0)
    counts = Counter(task_id for at, task_id in server.reads if at > 10)
    assert len(counts) == 100
    assert max(counts.values()) - min(counts.values()) <= 2


@both
def test_hanging_read_delays_no_other(watch: Watch) -> None:
    """The connection of one read was dropped on the way, so it lasts until its timeout."""
    server = Server(in_two_minutes() | {"7": math.inf}, spoil=refused, hanging="7")
    late = answered(server, watch)
    assert promised(late, 3.0)
    assert len([task_id for _, task_id in server.reads if task_id == "7"]) <= SECONDS / 15


@both
@pytest.mark.parametrize("spoil", [lambda rows, call: rows, hides_answers], ids=["whole", "without responses"])
def test_answer_on_the_list_of_ended_tasks_is_seen(spoil: Callable[[Rows, Call], object], watch: Watch) -> None:
    """That list is read when it is the cheapest way. A completion without its response is not an answer."""
    server = Server(in_two_minutes(), page_seconds=0.1, ended_seconds=0.002)
    server.spoil = lambda rows, call: spoil([*rows, ANCIENT], call) if "terminal" in (call.params or {}) else rows
    late = answered(server, watch)
    assert server.ended_pages >= 10
    assert promised(late, 3 * ROUND)


@both
def test_list_of_ended_tasks_without_ours_delays_no_answer_beyond_the_limit(watch: Watch) -> None:
    """It shows one ancient task only, so it seems to reach far enough back. A list of open tasks is read in time."""
    ends = {str(number): 2 * HOUR + 120 * number for number in range(20)}
    server = Server(ends, page_seconds=0.02, ended_seconds=0.002)
    server.spoil = lambda rows, call: [ANCIENT] if "terminal" in (call.params or {}) else rows
    late = answered(server, watch, 3.5 * HOUR)
    assert all(delay <= MAX_CHECK_SECONDS + 10 for _, delay in late.values())


@both
def test_invented_statuses_delay_no_answer(watch: Watch) -> None:
    """Each open task has a status of its own, which no release knows. So no list shows two of them."""
    server = Server(in_two_minutes(), status=lambda task_id: f"waiting for {task_id}")
    late = answered(server, watch)
    assert promised(late, ROUND + 3)
    assert server.busy <= SHARE * (SECONDS + 60) + QUESTIONS * READ
