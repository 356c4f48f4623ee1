"""Whose answer counts, stated once over every way a script has of asking; the engines have theirs in test_engines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from awaithumans_core import (
    AnswererNotAllowedError,
    HumanTask,
    Outcome,
    SyncTaskClient,
    TaskClient,
    await_human,
    await_human_sync,
    settle,
)
from awaithumans_core.testing import FakeHumans
from tests.support.workflows import Decision

ANNA, MALLORY = "anna@example.com", "mallory@example.com"
YES = {"approved": True}
OWN: dict[str, Any] = {"assign_to": ANNA, "only_assignee": True}

Ask = Callable[..., Awaitable[Any]]


async def in_a_thread(**options: Any) -> Any:
    def ask() -> Any:
        return await_human_sync(task="Pay?", response_schema=Decision, progress=False, **options)

    return await asyncio.to_thread(ask)


async def in_a_script(**options: Any) -> Any:
    return await await_human(task="Pay?", response_schema=Decision, progress=False, **options)


async def by_client(**options: Any) -> Any:
    async with TaskClient() as client:
        return settle(await client.ask(HumanTask(task="Pay?", response_schema=Decision, **options)), Decision)


async def by_sync_client(**options: Any) -> Any:
    def ask() -> Outcome:
        with SyncTaskClient() as client:
            return client.ask(HumanTask(task="Pay?", response_schema=Decision, **options))

    return settle(await asyncio.to_thread(ask), Decision)


async def as_one_of_many(**options: Any) -> Any:
    async with TaskClient() as client:
        (answer,) = await client.wait_all([HumanTask(task="Pay?", response_schema=Decision, **options)])
    return answer.result()


async def as_one_of_many_sync(**options: Any) -> Any:
    def ask() -> Any:
        with SyncTaskClient() as client:
            (answer,) = client.as_completed([HumanTask(task="Pay?", response_schema=Decision, **options)])
        return answer.result()

    return await asyncio.to_thread(ask)


ASKING_AGAIN = [in_a_script, in_a_thread, as_one_of_many, as_one_of_many_sync]
EVERY_WAY = [*ASKING_AGAIN, by_client, by_sync_client]

every_way = pytest.mark.parametrize("ask", EVERY_WAY)
asking_again = pytest.mark.parametrize("ask", ASKING_AGAIN)


@every_way
async def test_an_answer_that_may_not_be_given_is_an_error(fake_humans: FakeHumans, ask: Ask) -> None:
    """Whatever they answer, the caller gets the error, which names who answered, and never the answer."""
    fake_humans.answer("Pay?", YES).by(MALLORY)
    with pytest.raises(AnswererNotAllowedError) as refused:
        await ask(**OWN)
    assert (refused.value.answered_by, refused.value.outcome.status) == (MALLORY, "completed")


@pytest.mark.edges
@every_way
async def test_the_assignees_own_answer_is_accepted(fake_humans: FakeHumans, ask: Ask) -> None:
    """However the server writes the letters of the address."""
    fake_humans.answer("Pay?", YES).by("Anna@Example.com")
    assert (await ask(**OWN)).approved is True


@pytest.mark.edges
@asking_again
async def test_the_question_is_asked_again(fake_humans: FakeHumans, ask: Ask) -> None:
    """A yes of another person has no effect; the assignee's own no has."""
    fake_humans.answer("Pay?", YES).by(MALLORY).once()
    fake_humans.answer("Pay?", {"approved": False}).by(ANNA)
    assert (await ask(**OWN, max_reasks=1, idempotency_key="k")).approved is False
    assert [task.asked["idempotency_key"] for task in fake_humans.tasks] == ["k", "k:reask:1"]


@pytest.mark.edges
@asking_again
async def test_the_question_is_asked_again_only_so_often(fake_humans: FakeHumans, ask: Ask) -> None:
    """As often as after an answer that does not fit, counted together."""
    fake_humans.answer("Pay?", YES).by(MALLORY).once()
    fake_humans.on("Pay?").submits_invalid().by(ANNA).once()
    fake_humans.answer("Pay?", YES).by(MALLORY)
    with pytest.raises(AnswererNotAllowedError):
        await ask(**OWN, max_reasks=2)
    assert len(fake_humans.tasks) == 3
