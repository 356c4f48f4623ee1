"""Many questions over few connections: what is requested how often, and that no answer is lost."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from awaithumans_core.batch import Answer, Batch, in_a_thread
from awaithumans_core.errors import (
    AwaitHumansError,
    PermissionDeniedError,
    QuestionChangedError,
    ResponseSchemaError,
    ServerUnreachableError,
    TaskCancelledError,
    TaskNotFoundError,
    TaskRejectedError,
    TaskTimeoutError,
)
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS, Call, Flow, Lost, Reply
from awaithumans_core.outcome import Outcome
from awaithumans_core.schedule import MAX_CHECK_SECONDS, SHARE, interval
from awaithumans_core.task import HumanTask
from awaithumans_core.testing import VirtualClock
from tests.unit.scripted import driven, reply

R = TypeVar("R")

BEGINNING = datetime(2031, 1, 1, tzinfo=UTC)
DAY = 24 * 3600.0
NEVER = float("inf")

CREATE = "POST /api/tasks"
LIST = "GET /api/tasks"

REFUSED = Lost("ConnectError: refused")


class Decision(BaseModel):
    number: int


def question(number: int, **options: Any) -> HumanTask[Decision]:
    whole: dict[str, Any] = {
        "task": f"Question {number}?",
        "response_schema": Decision,
        "idempotency_key": f"key-{number}",
        "timeout_seconds": 30 * DAY,
    } | options
    return HumanTask(**whole)


def questions(count: int, **options: Any) -> list[HumanTask[Decision]]:
    return [question(number, **options) for number in range(count)]


@dataclass
class Task:
    """A task on the server, with the time and kind of its end."""

    id: str
    body: dict[str, Any]
    created: float
    ends: float
    status: str = "completed"
    response: dict[str, Any] | None = None


@dataclass
class Server:
    """A server in memory that answers the calls of the flows and counts them.

    A question is answered `after[number]` seconds after it was created, with its number. Without an entry it is never
    answered.
    """

    after: dict[int, float] = field(default_factory=dict)
    trouble: Callable[[Call], Reply | Lost | None] = lambda _: None
    """A reply to a call in place of the usual one."""
    takes: float = 0.0
    """Seconds that each call takes, except held polls."""
    scheduler: bool = True
    """Whether the server ends tasks at their deadline; otherwise the caller has to."""

    def __post_init__(self) -> None:
        self.clock = VirtualClock(quiet=0.0005)
        self.tasks: dict[str, Task] = {}
        self.calls: list[tuple[float, str]] = []
        """Time and text of each call."""
        self.now_open = self.most_open = 0

    def batch(self, connections: int) -> Batch:
        return Batch(self.run, self.clock, connections)

    async def all(self, asked: Iterable[HumanTask[Decision]], connections: int) -> list[tuple[int, Answer[Decision]]]:
        """Return everything that is yielded, in order."""
        async with asyncio.timeout(60), aclosing(self.batch(connections).answers(asked)) as answers:
            return [came async for came in answers]

    async def run(
        self,
        steps: Flow[R],
        *,
        on_status: Callable[[Outcome], None] | None = None,
        slots: asyncio.Semaphore | None = None,
    ) -> R:
        return await driven(steps, self.answer, self.clock.sleep, on_status=on_status, slots=slots)

    def calls_with(self, *words: str) -> list[float]:
        """Return the times of calls that contain these words."""
        return [when for when, made in self.calls if all(word in made for word in words)]

    @property
    def listings(self) -> list[float]:
        """Return the times at which the list was read."""
        return [when for when, made in self.calls if made == LIST]

    @property
    def waiting(self) -> list[str]:
        """Return the keys of the questions that have no answer yet."""
        return [key for key, task in self.tasks.items() if task.ends > self.clock.now()]

    async def answer(self, call: Call) -> Reply | Lost:
        self.clock.expected_action_done()
        self.calls.append((self.clock.now(), f"{call.method} {call.url}"))
        self.now_open += 1
        self.most_open = max(self.most_open, self.now_open)
        try:
            if self.takes:
                await self.clock.alarm(self.takes)
            return self.trouble(call) or await self._answer(call)
        finally:
            self.now_open -= 1

    async def _answer(self, call: Call) -> Reply:
        match call.method, call.url.removeprefix("/api/tasks").split("/")[1:]:
            case "POST", []:
                return self._create(dict(call.json or {}))
            case "GET", []:
                return self._list(dict(call.params or {}))
            case method, [task_id, *rest] if (task := self._task(task_id)) is not None:
                if method == "POST" and self._ended(task):
                    return reply(409, {"error": "TASK_ALREADY_TERMINAL"})
                if method == "POST":
                    task.ends, task.status, task.response = self.clock.now(), "cancelled", None
                if rest == ["poll"]:
                    left = task.ends - self.clock.now()
                    await self.clock.alarm(min(left, float((call.params or {})["timeout"])))
                return reply(200, self._record(task))
            case _:
                return reply(404, {"error": "TASK_NOT_FOUND"})

    def _create(self, body: dict[str, Any]) -> Reply:
        key = body["idempotency_key"]
        if known := self.tasks.get(key):
            return reply(201, self._record(known), idempotent_replayed="true")
        now = self.clock.now()
        number = int(key.split("-")[1].split(":")[0])
        ends = now + self.after.get(number, NEVER)
        task_id = f"task-{key}".replace(":", "-")
        task = self.tasks[key] = Task(task_id, body, now, ends, response=self.response(key, number))
        if self.scheduler and ends > (deadline := now + body["timeout_seconds"]):
            task.ends, task.status, task.response = deadline, "timed_out", None
        return reply(201, self._record(task))

    def response(self, key: str, number: int) -> dict[str, Any]:
        return {"number": number}

    def _list(self, params: dict[str, Any]) -> Reply:
        wanted = [
            self._record(task)
            for task in reversed(self.tasks.values())
            if self._ended(task) == ("terminal" in params) and params.get("status") in {None, "created"}
        ]
        return reply(200, wanted[params["offset"] : params["offset"] + params["limit"]])

    def _task(self, task_id: str) -> Task | None:
        return next((task for task in self.tasks.values() if task.id == task_id), None)

    def _ended(self, task: Task) -> bool:
        return task.ends <= self.clock.now()

    def _record(self, task: Task) -> dict[str, Any]:
        ended = self._ended(task)
        return {
            "id": task.id,
            "task": task.body["task"],
            "payload": task.body["payload"],
            "idempotency_key": task.body["idempotency_key"],
            "status": task.status if ended else "created",
            "response": task.response if ended else None,
            "created_at": (BEGINNING + timedelta(seconds=task.created)).isoformat(),
        }


def right(came: list[tuple[int, Answer[Decision]]]) -> list[int]:
    """Return the positions of the answered questions in the order of their answers, checking each answer."""
    for place, answer in came:
        if answer.error is None:
            assert answer.result() == Decision(number=place)
    return [place for place, answer in came if answer.error is None]


def failed(came: list[tuple[int, Answer[Decision]]]) -> dict[int, type[AwaitHumansError]]:
    """Return the positions of the questions without an answer, with their errors."""
    return {place: type(answer.error) for place, answer in came if answer.error is not None}


few_and_many = pytest.mark.parametrize(
    "connections", [1, 3, 50], ids=["one connection", "three connections", "a connection for each"]
)


# --- every question is answered once


@few_and_many
async def test_each_question_is_yielded_once_in_order_of_answers(connections: int) -> None:
    """Each answer is yielded when it arrives, with the position and the question that it belongs to."""
    order = [4, 0, 7, 2, 6, 1, 5, 3]
    server = Server({number: 60.0 * 1.5**place for place, number in enumerate(order)})
    asked = questions(8)
    came = await server.all(asked, connections)
    assert right(came) == order
    assert [answer.question for _, answer in came] == [asked[number] for number in order]
    assert len(server.calls_with(CREATE)) == 8


@pytest.mark.edges
@pytest.mark.parametrize("connections", [1, 2, 3, 10, 19, 20, 21])
async def test_concurrent_calls_are_limited_by_connections(connections: int) -> None:
    """Creating, listing, reading and polling together never use more connections than are given."""
    server = Server({number: 20.0 * number for number in range(20)}, takes=0.05)
    came = await server.all(questions(20), connections)
    assert sorted(right(came)) == list(range(20))
    assert server.most_open <= connections


async def test_all_connections_are_used() -> None:
    """A batch does not queue while connections are idle."""
    server = Server(dict.fromkeys(range(30), 1.0), takes=0.05)
    await server.all(questions(30), 10)
    assert 9 <= server.most_open <= 10


@pytest.mark.parametrize("connections", [0, -1])
def test_less_than_one_connection_is_refused(connections: int) -> None:
    """A batch needs at least one connection."""
    with pytest.raises(ValueError, match=f"connections is {connections}"):
        Server().batch(connections)


async def test_empty_batch_ends_immediately() -> None:
    """Nothing is created or read, and the batch ends."""
    server = Server()
    assert await server.all([], 3) == []
    assert server.calls == []


@few_and_many
async def test_stored_answers_are_returned_immediately(connections: int) -> None:
    """Questions that were answered before a restart need no list, no poll and no time."""
    server = Server(dict.fromkeys(range(10), 0.0))
    came = await server.all(questions(10), connections)
    assert sorted(right(came)) == list(range(10))
    assert {made for _, made in server.calls} == {CREATE}


@few_and_many
async def test_questions_with_one_key_share_the_answer(connections: int) -> None:
    """One task is created for both questions, and each of them gets its outcome."""
    server = Server({0: 100.0, 1: 300.0, 2: 200.0})
    came = await server.all([*questions(3), question(0), question(2)], connections)
    assert [answer.result().number for _, answer in came] == [0, 0, 2, 2, 1]
    assert {place for place, _ in came} == {0, 1, 2, 3, 4}
    assert len(server.tasks) == 3


@few_and_many
async def test_invalid_answer_is_asked_again(connections: int) -> None:
    """The first question is yielded with the answer to its repeated task."""

    class Hasty(Server):
        def response(self, key: str, number: int) -> dict[str, Any]:
            return {"number": number if number != 1 or ":reask:" in key else "one"}

    server = Hasty(dict.fromkeys(range(5), 60.0))
    asked = questions(5, max_reasks=1)
    came = await server.all(asked, connections)
    assert sorted(right(came)) == [0, 1, 2, 3, 4]
    assert came[-1][1].question is asked[1]
    assert set(server.tasks) == {f"key-{number}" for number in range(5)} | {"key-1:reask:1"}


# --- failures of single questions


def refusing(word: str, refused: Reply) -> Callable[[Call], Reply | None]:
    """Return a rule by which every call about this question is refused."""
    return lambda call: refused if word in f"{call.url} {(call.json or {}).get('idempotency_key')}" else None


@few_and_many
async def test_refused_question_loses_no_other(connections: int) -> None:
    """The refused question is yielded at once with its error, and the others are answered."""
    server = Server(dict.fromkeys(range(6), 500.0), trouble=refusing("key-2", reply(422, {"detail": "no"})))
    came = await server.all(questions(6), connections)
    assert came[0][0] == 2
    assert failed(came) == {2: TaskRejectedError}
    assert sorted(right(came)) == [0, 1, 3, 4, 5]


@few_and_many
async def test_deleted_task_loses_no_other(connections: int) -> None:
    """A deleted task is in no list, so a single read finds it, and the others are waited for."""
    server = Server(dict.fromkeys(range(12), 3000.0))

    def deleting(call: Call) -> None:
        if server.clock.now() > 1000:
            server.tasks.pop("key-5", None)

    server.trouble = deleting
    came = await server.all(questions(12), connections)
    assert failed(came) == {5: TaskNotFoundError}
    ended = next(answer.outcome for place, answer in came if place == 5)
    assert ended is not None
    assert ended.deleted
    assert sorted(right(came)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


async def test_deleted_task_among_many_is_found_within_fifteen_minutes() -> None:
    """With sixty questions of four hours over two connections, the caller learns of the deletion in time."""
    hours = 4 * 3600.0
    server = Server(dict.fromkeys(range(60), hours + 3600.0))

    def deleting(call: Call) -> None:
        if server.clock.now() > hours:
            server.tasks.pop("key-37", None)

    server.trouble = deleting
    async with aclosing(server.batch(2).answers(questions(60))) as answers:
        place, answer = await anext(answers)
    assert (place, type(answer.error)) == (37, TaskNotFoundError)
    assert hours + 300 <= server.clock.now() <= hours + 900
    assert len(server.calls_with(CREATE)) == 60


@pytest.mark.edges
@few_and_many
async def test_server_on_another_database_ends_no_question(connections: int, caplog: pytest.LogCaptureFixture) -> None:
    """If the server knows none of the tasks for half an hour, every answer still arrives afterwards."""
    server = Server(dict.fromkeys(range(12), 6000.0))
    unknown = refusing("task-", reply(404, {"error": "TASK_NOT_FOUND"}))
    server.trouble = lambda call: (
        (unknown(call) or (reply(200, []) if f"{call.method} {call.url}" == LIST else None))
        if 1000 < server.clock.now() < 2800
        else None
    )
    came = await server.all(questions(12), connections)
    assert sorted(right(came)) == list(range(12))
    assert connections == 50 or caplog.text.count("another database") == 1  # a client logs what a poll meets


@few_and_many
async def test_unreadable_task_loses_no_other(connections: int) -> None:
    """A caller that may not read one task may read the others."""
    refused = reply(403, {"detail": "no"})
    server = Server(dict.fromkeys(range(6), 500.0), trouble=refusing("task-key-2", refused))
    came = await server.all(questions(6), connections)
    assert failed(came) == {2: PermissionDeniedError}
    assert sorted(right(came)) == [0, 1, 3, 4, 5]


@few_and_many
async def test_key_of_another_question_loses_no_other(connections: int) -> None:
    """Two different questions cannot share a key: the second gets an error, and the first is answered."""
    server = Server(dict.fromkeys(range(6), 500.0))
    came = await server.all([*questions(6), question(3, payload={"amount": 1})], connections)
    assert failed(came) == {6: QuestionChangedError}
    assert sorted(right(came)) == [0, 1, 2, 3, 4, 5]


@few_and_many
async def test_each_end_without_answer_is_yielded_with_its_error(connections: int) -> None:
    """A cancelled task and an invalid answer are yielded with their outcome, which names the person."""

    class Careless(Server):
        def response(self, key: str, number: int) -> dict[str, Any]:
            return {"number": "four"} if number == 4 else {"number": number}

    server = Careless(dict.fromkeys(range(6), 500.0))

    def cancelling(call: Call) -> None:
        if server.clock.now() > 100 and "key-1" in server.waiting:
            task = server.tasks["key-1"]
            task.ends, task.status, task.response = server.clock.now(), "cancelled", None

    server.trouble = cancelling
    came = await server.all(questions(6), connections)
    assert failed(came) == {1: TaskCancelledError, 4: ResponseSchemaError}
    assert {place: answer.outcome.status for place, answer in came if answer.outcome} == {
        **dict.fromkeys(range(6), "completed"),
        1: "cancelled",
    }


# --- reads of the list


async def test_list_is_read_less_often_as_questions_age() -> None:
    """Over a day without an answer the interval grows from 0.9 s over 4.5 % of the age to nine minutes."""
    server = Server(dict.fromkeys(range(6), DAY))
    came = await server.all(questions(6), 2)
    assert sorted(right(came)) == list(range(6))
    planned, age = 0, 0.0
    while age < DAY:
        planned, age = planned + 1, age + interval(age)
    assert 0.9 * planned <= len(server.listings) <= 1.3 * planned
    for before, look in itertools.pairwise([0.0, *server.listings]):
        assert look - before <= interval(before) + 0.001


async def test_cost_of_a_check_is_independent_of_batch_size() -> None:
    """One page of the list and a few single reads serve ten questions as well as two hundred.

    In addition, each task is read every nine minutes to find out whether it was deleted.
    """

    async def calls_while_waiting(count: int) -> int:
        server = Server(dict.fromkeys(range(count), 1500.0))
        await server.all(questions(count), 5)
        return len([when for when, made in server.calls if 0 < when < 1400])

    ten, two_hundred = await calls_while_waiting(10), await calls_while_waiting(200)
    assert two_hundred - ten <= 200 * (1400 / MAX_CHECK_SECONDS + 1)


async def test_answer_is_found_within_a_second_and_5_percent() -> None:
    """The caller gets an answer after at most a twentieth of the person's time, and at most nine minutes."""
    after = {number: 3.0 * 1.5**number for number in range(24)}
    server = Server(after)
    came_at = dict[int, float]()
    async with aclosing(server.batch(1).answers(questions(26))) as answers:
        for _ in after:
            number, _ = await anext(answers)
            came_at[number] = server.clock.now()
    assert sorted(came_at) == list(after)
    for number, took in after.items():
        assert 0 <= came_at[number] - took <= min(max(1.0, 0.05 * took), MAX_CHECK_SECONDS)


async def test_many_simultaneous_answers_are_found_together() -> None:
    """Three hundred answers are found with the next checks, and not with a check for each."""
    server = Server(dict.fromkeys(range(300), 10.0))
    came = await server.all(questions(300), 3)
    assert sorted(right(came)) == list(range(300))
    assert server.clock.now() <= 10.0 + 5.0
    assert len(server.listings) <= 150  # reads alone would be three thousand


async def test_slow_server_is_asked_less_often() -> None:
    """On a server that takes two seconds for each request, checks pause for a minute at most, and answers arrive."""
    server = Server(dict.fromkeys(range(6), 600.0), takes=2.0)
    assert sorted(right(await server.all(questions(6), 2))) == list(range(6))
    asked = [when for when, made in server.calls if 60 < when < 600 and made.startswith("GET")]
    assert 0 < len(asked) <= 0.1 * 540 / 2
    assert server.clock.now() <= 600 + 6 * 60


async def test_checks_keep_to_the_budget() -> None:
    """Whatever the questions need, the requests take 2 % of the time, beside what was saved before."""
    server = Server(dict.fromkeys(range(200), 600.0), takes=0.05)
    await server.all(questions(200), 5)
    asked = [when for when, made in server.calls if made.startswith("GET") and "/poll" not in made and when < 600]
    assert len(asked) * server.takes <= SHARE * (600 + 60) * 1.1


async def test_repeated_question_is_checked_like_a_new_one() -> None:
    """A question that is asked again after an hour is checked as often as a new one."""

    class Hasty(Server):
        def response(self, key: str, number: int) -> dict[str, Any]:
            return {"number": number if ":reask:" in key else "wrong"}

    server = Hasty({0: 3000.0, 1: DAY, 2: DAY, 3: DAY})
    async with aclosing(server.batch(1).answers(questions(4, max_reasks=1))) as answers:
        async for _ in answers:
            break
    asked_again = server.calls_with(CREATE)[4]
    soon = [when for when in server.listings if asked_again < when < asked_again + 60]
    assert len(soon) >= 10


async def test_questions_are_polled_only_with_a_connection_each() -> None:
    """A held poll for each question needs a connection for each, so larger batches are not polled."""
    server = Server({0: 100.0, 1: 200.0, 2: 300.0, 3: 1000.0, 4: 2000.0, 5: 3000.0})
    came = await server.all(questions(6), 3)
    assert right(came) == list(range(6))
    polled = server.calls_with("/poll")
    assert min(polled) >= 300
    assert len([when for when in server.listings if when > min(polled)]) == 0


async def test_list_is_not_read_with_a_connection_for_each() -> None:
    """Long polls bring the answers, and the list is not read at all."""
    server = Server({number: 100.0 * number for number in range(1, 6)})
    await server.all([question(number) for number in range(1, 6)], 5)
    assert server.listings == []


# --- unusual servers


LISTS_NOTHING: dict[str, Reply | Lost] = {
    "403": reply(403, {"detail": "Operator access required."}),
    "401": reply(401, {"detail": "no"}),
    "405": reply(405, {"detail": "Method Not Allowed"}),
    "another service's 404": reply(404, {"detail": "Not Found"}),
    "a page": reply(200, b"<html>", content_type="text/html"),
    "lost": REFUSED,
}


@pytest.mark.edges
@pytest.mark.parametrize("refused", LISTS_NOTHING.values(), ids=LISTS_NOTHING)
@pytest.mark.parametrize("connections", [1, 3])
async def test_answers_are_found_without_a_list(connections: int, refused: Reply | Lost) -> None:
    """If the server lists nothing, or refuses to list, every task is read individually."""
    server = Server({number: 60.0 + 100 * number for number in range(12)})
    server.trouble = lambda call: refused if f"{call.method} {call.url}" == LIST else None
    came = await server.all(questions(12), connections)
    assert right(came) == list(range(12))


async def test_answers_missing_from_the_list_are_found() -> None:
    """Some tokens may read tasks that lists do not show them, so each task is also read in turn."""
    server = Server(dict.fromkeys(range(20), 100.0))
    server.trouble = lambda call: reply(200, []) if f"{call.method} {call.url}" == LIST else None
    came = await server.all(questions(20), 2)
    assert sorted(right(came)) == list(range(20))
    assert len(server.listings) <= 40  # it is not asked again soon once it was wrong


OUTAGES: dict[str, Callable[[Call], bool]] = {
    "the list": lambda call: f"{call.method} {call.url}" == LIST,
    "all but the list": lambda call: f"{call.method} {call.url}" != LIST,
    "everything": lambda _: True,
}


@pytest.mark.parametrize("hit", OUTAGES.values(), ids=OUTAGES)
@pytest.mark.parametrize("trouble", [REFUSED, reply(503, b"")], ids=["lost", "503"])
@few_and_many
async def test_outage_loses_no_answer(connections: int, trouble: Reply | Lost, hit: Callable[[Call], bool]) -> None:
    """Answers given before, during and after some minutes without the server all arrive."""
    server = Server({number: 40.0 * number + 1 for number in range(10)})
    server.trouble = lambda call: trouble if 100 < server.clock.now() < 300 and hit(call) else None
    came = await server.all(questions(10), connections)
    assert sorted(right(came)) == list(range(10))


@few_and_many
async def test_questions_are_created_after_an_outage(connections: int) -> None:
    """All questions are created once a server is reachable that was down at the start."""
    server = Server(dict.fromkeys(range(8), 100.0))
    server.trouble = lambda _: REFUSED if server.clock.now() < 300 else None
    came = await server.all(questions(8), connections)
    assert sorted(right(came)) == list(range(8))


@few_and_many
async def test_permanently_unreachable_server_is_an_error_for_each_question(connections: int) -> None:
    """After its deadline each question reports that its end is unknown, and the batch ends."""
    server = Server()
    server.trouble = lambda _: REFUSED if server.clock.now() > 30 else None
    came = await server.all(questions(8, timeout_seconds=120), connections)
    assert failed(came) == dict.fromkeys(range(8), ServerUnreachableError)


# --- deadlines


@pytest.mark.parametrize("scheduler", [True, False], ids=["the server ends it", "the asker ends it"])
@few_and_many
async def test_passed_deadline_is_a_timeout(connections: int, *, scheduler: bool) -> None:
    """A question times out soon after its own deadline, whatever the others do, and its task is closed."""
    asked = [question(number, timeout_seconds=600 if number in {2, 4} else 30 * DAY) for number in range(6)]
    server = Server(dict.fromkeys([0, 1, 3, 5], 1500.0), scheduler=scheduler)
    async with aclosing(server.batch(connections).answers(asked)) as answers:
        came = [await anext(answers), await anext(answers)]
        assert 600 <= server.clock.now() <= 600 + TIMEOUT_GRACE_SECONDS + 30
        assert failed(came) == {2: TaskTimeoutError, 4: TaskTimeoutError}
        assert [answer.outcome.status for _, answer in came if answer.outcome] == ["timed_out"] * 2
        assert sorted(server.waiting) == ["key-0", "key-1", "key-3", "key-5"]
        came = [other async for other in answers]
    assert sorted(right(came)) == [0, 1, 3, 5]


@few_and_many
async def test_answer_within_the_grace_period_counts(connections: int) -> None:
    """An answer shortly after the deadline counts if the server has not yet ended the task."""
    server = Server(dict.fromkeys(range(6), 610.0), scheduler=False)
    came = await server.all(questions(6, timeout_seconds=600), connections)
    assert sorted(right(came)) == list(range(6))


# --- early end


def others() -> set["asyncio.Task[Any]"]:
    """Return the asyncio tasks other than the test's own."""
    return asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task is not None}


@few_and_many
async def test_leaving_early_leaves_no_asyncio_task(connections: int) -> None:
    """No asyncio task continues, and the questions stay open on the server for a later call."""
    server = Server({0: 100.0}, takes=0.05)
    before = others()
    answers = server.batch(connections).answers(questions(6))
    assert (await anext(answers))[0] == 0
    assert others() > before
    await answers.aclose()
    await asyncio.sleep(0)
    assert others() == before
    assert len(server.waiting) == 5
    assert server.now_open == 0


@few_and_many
async def test_cancellation_leaves_no_asyncio_task(connections: int) -> None:
    """A caller that is cancelled while it waits ends all of its asyncio tasks."""
    server = Server()
    before = others()
    waiting = asyncio.create_task(server.all(questions(6), connections))
    while len(server.tasks) < 6:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert others() == before
    assert len(server.waiting) == 6


@pytest.mark.parametrize("word", ["POST /api/tasks", LIST], ids=["asking", "looking"])
async def test_unexpected_error_ends_the_batch(word: str) -> None:
    """An unexpected error is raised where the answers are read, so the caller does not wait for ever."""
    server = Server()

    def broken(call: Call) -> None:
        if f"{call.method} {call.url}" == word:
            raise ZeroDivisionError("unforeseen")

    server.trouble = broken
    before = others()
    with pytest.raises(ZeroDivisionError, match="unforeseen"):
        await server.all(questions(6), 2)
    await asyncio.sleep(0)
    assert others() == before


# --- callers without an event loop


async def three(server: Server) -> AsyncGenerator[tuple[int, Answer[Decision]]]:
    async with aclosing(server.batch(1).answers(questions(3))) as answers:
        async for came in answers:
            yield came


def test_sync_caller_gets_answers_in_order() -> None:
    """A caller without an event loop gets the answers of a batch in the order of their arrival."""
    server = Server({0: 200.0, 1: 100.0, 2: 300.0})
    assert right(list(in_a_thread(lambda: three(server)))) == [1, 0, 2]


def test_closing_the_sync_generator_ends_its_thread() -> None:
    """Closing the generator ends the thread and its loop, and the questions stay open."""
    server = Server({1: 100.0})
    answers = in_a_thread(lambda: three(server))
    assert right([next(answers)]) == [1]
    answers.close()
    assert server.now_open == 0
    assert sorted(server.waiting) == ["key-0", "key-2"]


def test_error_in_the_thread_is_raised_to_the_caller() -> None:
    """An error in the thread is raised where the answers are read."""
    server = Server()

    def broken(call: Call) -> None:
        raise ZeroDivisionError("unforeseen")

    server.trouble = broken
    with pytest.raises(ZeroDivisionError, match="unforeseen"):
        list(in_a_thread(lambda: three(server)))


# --- an answer


def test_result_returns_decision_or_raises_error() -> None:
    """`result` returns or raises what `await_human` would."""
    good = Answer(question(1), None, decision=Decision(number=1))
    assert good.result() == Decision(number=1)
    with pytest.raises(TaskTimeoutError, match="late"):
        Answer(question(1), None, TaskTimeoutError("late")).result()


def test_repr_of_an_answer_hides_the_decision() -> None:
    """The representation of an answer does not show what a person decided."""
    assert "4711" not in repr(Answer(question(1), None, decision=Decision(number=4711)))
