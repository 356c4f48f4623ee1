"""Whose answer counts, for every way in which a script can ask; test_engines has the same for the engines."""

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
async def test_answer_of_a_person_who_may_not_answer_is_an_error(fake_humans: FakeHumans, ask: Ask) -> None:
    """The caller gets an error that names who answered, and never the answer."""
    fake_humans.answer("Pay?", YES).by(MALLORY)
    with pytest.raises(AnswererNotAllowedError) as refused:
        await ask(**OWN)
    assert (refused.value.answered_by, refused.value.outcome.status) == (MALLORY, "completed")


@pytest.mark.edges
@every_way
async def test_assignees_own_answer_is_accepted(fake_humans: FakeHumans, ask: Ask) -> None:
    """The assignee's answer is accepted in whatever case the server writes the address."""
    fake_humans.answer("Pay?", YES).by("Anna@Example.com")
    assert (await ask(**OWN)).approved is True


@pytest.mark.edges
@asking_again
async def test_answer_of_another_person_is_asked_for_again(fake_humans: FakeHumans, ask: Ask) -> None:
    """Another person's yes has no effect, and the assignee's own no is the answer."""
    fake_humans.answer("Pay?", YES).by(MALLORY).once()
    fake_humans.answer("Pay?", {"approved": False}).by(ANNA)
    assert (await ask(**OWN, max_reasks=1, idempotency_key="k")).approved is False
    assert [task.asked["idempotency_key"] for task in fake_humans.tasks] == ["k", "k:reask:1"]


@pytest.mark.edges
@asking_again
async def test_reasks_for_another_person_are_limited_by_max_reasks(fake_humans: FakeHumans, ask: Ask) -> None:
    """Answers by the wrong person and answers that do not fit count together towards `max_reasks`."""
    fake_humans.answer("Pay?", YES).by(MALLORY).once()
    fake_humans.on("Pay?").submits_invalid().by(ANNA).once()
    fake_humans.answer("Pay?", YES).by(MALLORY)
    with pytest.raises(AnswererNotAllowedError):
        await ask(**OWN, max_reasks=2)
    assert len(fake_humans.tasks) == 3
