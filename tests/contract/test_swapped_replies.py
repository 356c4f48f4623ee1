"""Every question gets its own answer when a proxy swaps replies, in every way of asking."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from awaithumans_core import HumanTask, Outcome
from awaithumans_core.testing import FakeHumans, faults
from awaithumans_core.testing.fake import Verb

QUESTIONS = 4


class Number(BaseModel):
    number: int


Way = Callable[[FakeHumans, Sequence[HumanTask[Any]]], Awaitable[list[Outcome | None]]]


async def ask(humans: FakeHumans, questions: Sequence[HumanTask[Any]]) -> list[Outcome | None]:
    async with humans.client() as client:
        return [*await asyncio.gather(*(client.ask(question) for question in questions))]


async def ask_sync(humans: FakeHumans, questions: Sequence[HumanTask[Any]]) -> list[Outcome | None]:
    with humans.sync_client() as client:
        return [*await asyncio.gather(*(asyncio.to_thread(client.ask, question) for question in questions))]


async def poll(humans: FakeHumans, questions: Sequence[HumanTask[Any]]) -> list[Outcome | None]:
    """Wait by the polls that a caller makes itself."""
    async with humans.client() as client:

        async def one(question: HumanTask[Any]) -> Outcome:
            outcome = await client.create(question)
            while not outcome.terminal:
                outcome = await client.poll(outcome.task_id)
            return outcome

        return [*await asyncio.gather(*map(one, questions))]


async def wait_all(humans: FakeHumans, questions: Sequence[HumanTask[Any]]) -> list[Outcome | None]:
    async with humans.client() as client:
        return [answer.outcome for answer in await client.wait_all(questions, connections=QUESTIONS)]


async def wait_for_many(humans: FakeHumans, questions: Sequence[HumanTask[Any]]) -> list[Outcome | None]:
    """Wait for more questions than connections, so that the list of ended tasks shows their ends."""
    async with humans.client() as client:
        return [answer.outcome for answer in await client.wait_all(questions, connections=3)]


async def wait_for_many_sync(humans: FakeHumans, questions: Sequence[HumanTask[Any]]) -> list[Outcome | None]:
    with humans.sync_client() as client:
        answers = await asyncio.to_thread(client.wait_all, questions, connections=3)
    return [answer.outcome for answer in answers]


WAYS: dict[str, Way] = {
    "async": ask,
    "sync": ask_sync,
    "polls": poll,
    "wait-all": wait_all,
    "more-than-connections": wait_for_many,
    "more-than-connections-sync": wait_for_many_sync,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.mark.edges
@pytest.mark.parametrize("on", ["poll", "any"])
@ways
async def test_swapped_polls_give_each_question_its_own_answer(way: Way, on: Verb) -> None:
    """All answers have the same shape, so only the record shows to which question one belongs."""
    humans = FakeHumans()
    with humans.serving():
        for number in range(QUESTIONS):
            humans.answer(f"Number {number}?", {"number": number}).after(number).by(f"{number}@example.com")
        humans.fault(faults.swapped(10), on=on, times=4 * QUESTIONS)
        questions = [
            HumanTask(task=f"Number {number}?", response_schema=Number, timeout_seconds=3600)
            for number in range(QUESTIONS)
        ]
        outcomes = await way(humans, questions)
    assert [outcome and outcome.response for outcome in outcomes] == [{"number": n} for n in range(QUESTIONS)]
    assert [outcome and outcome.idempotency_key for outcome in outcomes] == [q.idempotency_key for q in questions]
    assert [outcome and outcome.completed_by_email for outcome in outcomes] == [
        f"{n}@example.com" for n in range(QUESTIONS)
    ]
    assert len(humans.tasks) == QUESTIONS, "a person was asked more than once"


@pytest.mark.parametrize("on", ["create", "cancel", "get", "any"])
async def test_swapped_creates_and_cancels_withdraw_each_question_once(on: Verb) -> None:
    """A reply to a create or cancel of another question cancels nothing and reports no end."""
    async with FakeHumans() as humans, humans.client() as client:
        questions = [
            HumanTask(task=f"{name}?", response_schema=Number, idempotency_key=name) for name in ("one", "two", "three")
        ]
        answered = await client.create(questions[2])
        humans.complete(answered.task_id, {"number": 3})
        humans.fault(faults.swapped(), on=on, times=8)
        outcomes = await asyncio.gather(*map(client.withdraw, questions))
    assert [(outcome.idempotency_key, outcome.status) for outcome in outcomes] == [
        ("one", "cancelled"),
        ("two", "cancelled"),
        ("three", "completed"),
    ]


async def test_swapped_checks_keep_each_callers_deadline() -> None:
    """The final check of one question is not taken for another's: one times out, the others are answered."""
    async with FakeHumans() as humans:
        humans.answer("two", {"number": 2}).after(100)
        humans.fault(faults.swapped(30), on="get", times=6)
        questions = [
            HumanTask(task="one", response_schema=Number, timeout_seconds=60, idempotency_key=uuid.uuid4().hex),
            HumanTask(task="two", response_schema=Number, timeout_seconds=900, idempotency_key=uuid.uuid4().hex),
        ]
        one, two = await ask(humans, questions)
    assert one is not None
    assert (one.status, one.response) == ("timed_out", None)
    assert two is not None
    assert two.response == {"number": 2}


async def test_answer_erased_after_the_poll_is_not_lost() -> None:
    """With `redact_response_after_submit` the response is taken from the poll of the same completion."""
    async with FakeHumans() as humans:
        humans.answer("secret", {"number": 7}).after(60)
        humans.fault(faults.changed(response=None), on="get")
        async with humans.client() as client:
            outcome = await client.ask(HumanTask(task="secret", response_schema=Number))
    assert (outcome.response, outcome.completed_by_email) == ({"number": 7}, "person@example.com")


@pytest.mark.parametrize("on", ["create", "get", "cancel", "list"])
async def test_record_without_its_key_is_matched_by_task_id(on: Verb) -> None:
    """If the server hides keys, a record is matched by the id of its task."""
    async with FakeHumans() as humans:
        for number in range(4):
            humans.answer(f"Number {number}?", {"number": number}).after(10 * (number + 1))
        humans.fault(faults.changed(idempotency_key=None), on=on, times=1000)
        questions = [HumanTask(task=f"Number {number}?", response_schema=Number) for number in range(4)]
        outcomes = await wait_for_many(humans, questions)
        async with humans.client() as client:
            withdrawn = await client.withdraw(HumanTask(task="not needed", response_schema=Number))
    assert [outcome and outcome.response for outcome in outcomes] == [{"number": number} for number in range(4)]
    assert withdrawn.status == "cancelled"


async def test_listed_record_counts_only_under_its_key() -> None:
    """A record in the list of ended tasks counts only under the question's key; otherwise its task is read."""
    async with FakeHumans() as humans:
        for number in range(4):
            humans.answer(f"Number {number}?", {"number": number}).after(10 * (number + 1))
        humans.fault(faults.changed(idempotency_key="another", response={"number": -1}), on="list", times=1000)
        questions = [HumanTask(task=f"Number {number}?", response_schema=Number) for number in range(4)]
        outcomes = await wait_for_many(humans, questions)
    assert [outcome and outcome.response for outcome in outcomes] == [{"number": number} for number in range(4)]
