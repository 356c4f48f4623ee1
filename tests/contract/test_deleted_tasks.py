"""A task is deleted while a script waits for it, in virtual time."""

import asyncio
import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from awaithumans_core import HumanTask, TaskNotFoundError, TaskTimeoutError, await_human, await_human_sync
from awaithumans_core import clock as clocks
from awaithumans_core.testing import FakeHumans
from tests.support.workflows import Decision

HOUR = 3600


def question(**options: Any) -> HumanTask[Decision]:
    return HumanTask(task="Approve?", response_schema=Decision, **{"timeout_seconds": 2 * HOUR} | options)


async def of_client(humans: FakeHumans) -> None:
    with humans.sync_client() as client:
        await asyncio.to_thread(client.ask, question())


async def of_async_client(humans: FakeHumans) -> None:
    async with humans.client() as client:
        await client.ask(question())


async def of_await_human(humans: FakeHumans) -> None:
    await await_human(
        task="Approve?",
        response_schema=Decision,
        timeout_seconds=2 * HOUR,
        server_url=humans.url,
        api_key=humans.token,
    )


async def of_await_human_sync(humans: FakeHumans) -> None:
    await asyncio.to_thread(
        await_human_sync,
        task="Approve?",
        response_schema=Decision,
        timeout_seconds=2 * HOUR,
        server_url=humans.url,
        api_key=humans.token,
    )


CALLERS: list[Callable[[FakeHumans], Any]] = [of_client, of_async_client, of_await_human, of_await_human_sync]


async def created(humans: FakeHumans) -> str:
    async with asyncio.timeout(60):
        while not humans.tasks:
            await asyncio.sleep(0.002)
    return humans.tasks[0].id


@pytest.mark.parametrize("ask", CALLERS, ids=lambda ask: ask.__name__)
async def test_deleted_task_is_reported_within_15_minutes(
    ask: Callable[[FakeHumans], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets one TaskNotFoundError with the task, and one log line; the question is asked once."""
    caplog.set_level(logging.WARNING, "awaithumans")
    humans, shown = FakeHumans(), io.StringIO()
    monkeypatch.setattr(clocks, "SYSTEM", humans.clock)
    monkeypatch.setattr(sys, "stderr", shown)
    with humans.serving():
        asking = asyncio.create_task(ask(humans))
        task_id = await created(humans)
        humans.delete(task_id)
        deleted_at = humans.clock.now()
        with pytest.raises(TaskNotFoundError) as raised:
            await asking
    assert raised.value.task_id == task_id
    assert raised.value.outcome.deleted
    assert 300 <= humans.clock.now() - deleted_at <= 900
    assert [call for _, call in humans.calls].count("create") == 1
    assert caplog.text.count("is not on the server") == 1
    if "await_human" in ask.__name__:
        assert shown.getvalue().count("is not on the server") == 1


async def test_temporary_switch_of_the_servers_database_loses_no_answer() -> None:
    """If the server runs on another database for four minutes, an answer given afterwards arrives."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("Approve?", {"approved": True}).after(1000)
        asking = asyncio.create_task(client.ask(question()))
        await created(humans)
        with humans.another_database():
            async with asyncio.timeout(60):
                while humans.clock.now() < 240:
                    await asyncio.sleep(0.002)
        outcome = await asking
    assert outcome.response == {"approved": True}
    assert [call for _, call in humans.calls].count("create") == 1


async def test_deadline_before_the_deletion_is_confirmed_is_a_timeout() -> None:
    """If the task of a two-minute question is deleted, the caller gets its own deadline."""
    async with FakeHumans() as humans, humans.client() as client:
        asking = asyncio.create_task(client.wait_all([question(timeout_seconds=120)]))
        humans.delete(await created(humans))
        (answer,) = await asking
    assert isinstance(answer.error, TaskTimeoutError)
    assert 120 <= humans.clock.now() <= 200


async def test_only_the_deleted_tasks_of_a_batch_end() -> None:
    """Of six questions two tasks are deleted, and the other four are answered."""
    names = [f"Approve {number}?" for number in range(6)]
    async with FakeHumans() as humans, humans.client() as client:
        for name in names[2:]:
            humans.answer(name, {"approved": True}).after(1200)
        tasks = [HumanTask(task=name, response_schema=Decision, timeout_seconds=2 * HOUR) for name in names]
        asking = asyncio.create_task(client.wait_all(tasks))
        async with asyncio.timeout(60):
            while len(humans.tasks) < 6:
                await asyncio.sleep(0.002)
        for name in names[:2]:
            humans.delete(humans.task(name).id)
        answers = await asking
    assert [type(answer.error) for answer in answers] == [TaskNotFoundError] * 2 + [type(None)] * 4


async def test_call_with_the_key_of_a_deleted_task_asks_anew() -> None:
    """After the error the caller may ask again under the same key, which creates a new task."""
    async with FakeHumans() as humans, humans.client() as client:
        asking = asyncio.create_task(client.ask(question(idempotency_key="refund:1")))
        humans.delete(await created(humans))
        with pytest.raises(TaskNotFoundError):
            await asking
        humans.answer("Approve?", {"approved": True})
        assert (await client.ask(question(idempotency_key="refund:1"))).response == {"approved": True}
