"""Batches of questions, on the real server and on the fake, with and without an event loop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest

from awaithumans_core import (
    Answer,
    HumanTask,
    ResponseSchemaError,
    SyncTaskClient,
    TaskCancelledError,
    TaskClient,
    TaskRejectedError,
)
from tests.support.clocks import FastClock
from tests.support.connections import established
from tests.support.people import People
from tests.support.servers import TaskServer
from tests.support.workflows import Decision

Batch = Callable[..., AsyncGenerator[Answer[Decision]]]


@pytest.fixture(params=["async", "sync"])
async def as_completed(request: pytest.FixtureRequest, server: TaskServer) -> AsyncGenerator[Batch]:
    """Yield `as_completed` of the async or of the sync client."""
    if request.param == "async":
        async with TaskClient(server.url, server.token, clock=FastClock()) as client:
            yield client.as_completed
        return

    async def in_a_thread(tasks: Sequence[HumanTask[Any]], **options: Any) -> AsyncGenerator[Answer[Any]]:
        answers = sync_client.as_completed(tasks, **options)
        try:
            while (answer := await asyncio.to_thread(next, answers, None)) is not None:
                yield answer
        finally:
            await asyncio.to_thread(answers.close)

    with SyncTaskClient(server.url, server.token, clock=FastClock()) as sync_client:
        yield in_a_thread


def questions(question: str, count: int, **options: Any) -> list[HumanTask[Decision]]:
    return [
        HumanTask(task=f"{question} {place}", response_schema=Decision, payload={"place": place}, **options)
        for place in range(count)
    ]


async def answered(somebody: People, tasks: Sequence[HumanTask[Any]]) -> None:
    for task in tasks:
        found = await somebody.by_key(task.idempotency_key)
        await somebody.complete(found["id"], {"approved": True, "note": task.task})


@pytest.mark.edges
@pytest.mark.parametrize("connections", [1, 3, 20], ids="{}-connections".format)
async def test_each_question_of_a_batch_gets_its_own_answer(
    as_completed: Batch, somebody: People, question: str, connections: int
) -> None:
    """Whatever the number of connections, every question gets its answer once."""
    asked = questions(question, 8)
    answering = asyncio.create_task(answered(somebody, asked[::-1]))
    answers = [answer async for answer in as_completed(asked, connections=connections)]
    await answering
    assert {answer.question.task: answer.result().note for answer in answers} == {
        task.task: task.task for task in asked
    }
    assert len(answers) == len(asked)
    assert {answer.outcome.completed_by_email for answer in answers if answer.outcome} == {"anna@example.com"}


async def test_answers_are_yielded_as_they_are_given(as_completed: Batch, somebody: People, question: str) -> None:
    """The first answer is yielded while the other questions are open."""
    asked = questions(question, 5)
    answers = as_completed(asked, connections=2)
    answering = asyncio.create_task(answered(somebody, asked[3:4]))
    first = await asyncio.wait_for(anext(answers), 15)
    await answering
    assert first.question is asked[3]
    await answered(somebody, [task for task in asked if task is not asked[3]])
    assert len([answer async for answer in answers]) == 4


async def test_failed_question_does_not_lose_the_other_answers(
    as_completed: Batch, somebody: People, question: str
) -> None:
    """Each kind of failure is yielded as an answer with its error, beside the other answers."""
    good, cancelled, invalid, refused = questions(question, 3) + questions("refused", 1, task_metadata={"k": 1})

    async def people() -> None:
        await somebody.cancel((await somebody.by_key(cancelled.idempotency_key))["id"])
        await somebody.complete((await somebody.by_key(invalid.idempotency_key))["id"], {"approved": "perhaps"})
        await answered(somebody, [good])

    working = asyncio.create_task(people())
    answers = [answer async for answer in as_completed([good, cancelled, invalid, refused], connections=2)]
    await working
    came = {id(answer.question): answer for answer in answers}
    assert came[id(good)].result().approved is True
    errors = {task.task: type(came[id(task)].error) for task in (cancelled, invalid, refused)}
    assert list(errors.values()) == [TaskCancelledError, ResponseSchemaError, TaskRejectedError]
    with pytest.raises(TaskCancelledError):
        came[id(cancelled)].result()


async def test_max_reasks_applies_to_each_question_of_a_batch(
    as_completed: Batch, somebody: People, question: str
) -> None:
    """Every question of a batch is asked again after an invalid answer."""
    asked = questions(question, 3, max_reasks=1)

    async def people() -> None:
        for task in asked:
            await somebody.complete((await somebody.by_key(task.idempotency_key))["id"], {"approved": "hm"})
        for task in asked:
            again = await somebody.by_key(f"{task.idempotency_key}:reask:1")
            await somebody.complete(again["id"], {"approved": True})

    working = asyncio.create_task(people())
    answers = [answer async for answer in as_completed(asked, connections=2)]
    await working
    assert [answer.result().approved for answer in answers] == [True, True, True]


async def test_questions_with_one_key_share_the_task(as_completed: Batch, somebody: People, question: str) -> None:
    """A shared question is asked once, and both entries get its answer."""
    shared = [HumanTask(task=question, response_schema=Decision, idempotency_key=question) for _ in range(3)]
    answering = asyncio.create_task(somebody.answer(question, {"approved": True}))
    answers = [answer async for answer in as_completed(shared, connections=2)]
    await answering
    assert [answer.result().approved for answer in answers] == [True] * 3


async def test_leaving_as_completed_early_leaves_the_questions_open(
    as_completed: Batch, somebody: People, question: str
) -> None:
    """After an early exit the other questions stay open, and their keys find them again."""
    asked = questions(question, 5)
    answers = as_completed(asked, connections=2)
    answering = asyncio.create_task(answered(somebody, asked[:1]))
    await anext(answers)
    await answering
    started = time.monotonic()
    await answers.aclose()
    assert time.monotonic() - started < 12  # the server holds a poll for 25 s
    open_one = await somebody.by_key(asked[1].idempotency_key)
    assert open_one["status"] == "created"


async def test_wait_all_returns_answers_in_order(server: TaskServer, somebody: People, question: str) -> None:
    """`wait_all` returns the answers in the order of the questions, in both clients."""
    asked = questions(question, 4)
    answering = asyncio.create_task(answered(somebody, asked[::-1]))
    async with TaskClient(server.url, server.token, clock=FastClock()) as client:
        answers = await client.wait_all(asked, connections=2)
    await answering
    assert [answer.question for answer in answers] == asked
    with SyncTaskClient(server.url, server.token, clock=FastClock()) as sync_client:
        again = await asyncio.to_thread(sync_client.wait_all, asked)
    assert [answer.result() for answer in again] == [answer.result() for answer in answers]


async def test_empty_batch_yields_nothing(server: TaskServer) -> None:
    """A batch without questions yields no answers."""
    async with TaskClient(server.url, server.token, clock=FastClock()) as client:
        assert await client.wait_all([]) == []


@pytest.mark.edges
async def test_batch_never_exceeds_its_connection_limit(server: TaskServer, somebody: People, question: str) -> None:
    """Sixty questions never hold more than the allowed number of connections."""
    asked = questions(question, 60)
    port = int(server.url.rsplit(":", 1)[1])
    before = set(established(port))
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(set(established(port)) - before))
            await asyncio.sleep(0.02)

    counting = asyncio.create_task(count())
    async with TaskClient(server.url, server.token) as client:
        waiting = asyncio.create_task(client.wait_all(asked, connections=6))
        listed = await somebody.find_all([task.idempotency_key for task in asked])
        for task in listed:
            await somebody.complete(task["id"], {"approved": True})
        answers = await waiting
    counting.cancel()
    assert all(answer.result().approved for answer in answers)
    # `People` opens one connection in the meantime.
    assert 2 <= most <= 6 + 1
