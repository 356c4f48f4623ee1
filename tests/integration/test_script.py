"""Plain scripts on the real server: the long-poll client, async and sync, under one set of promises."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from examples.demo.servers import HumansServer

from awaithumans_core import (
    AuthenticationError,
    InvalidTaskError,
    ResponseSchemaError,
    SettingsError,
    SyncTaskClient,
    TaskCancelledError,
    TaskClient,
    TaskNotFoundError,
    TaskRejectedError,
    await_human,
    await_human_sync,
)
from tests.support.people import People
from tests.support.workflows import Decision

Ask = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest, humans: HumansServer) -> Ask:
    """`await_human`, or `await_human_sync` in a thread of its own."""

    async def run(**options: Any) -> Any:
        server = {"server_url": humans.url, "api_key": humans.token}
        given: dict[str, Any] = {**server, "response_schema": Decision, **options}
        if request.param == "async":
            return await await_human(**given)
        return await asyncio.to_thread(lambda: await_human_sync(**given))

    return run


@pytest.fixture
def question() -> str:
    return f"Approve {uuid.uuid4().hex[:8]}?"


async def test_answer_is_typed(ask: Ask, people: People, question: str) -> None:
    """The answer comes back as the class that was asked for, and with it who gave it."""
    asking = asyncio.create_task(ask(task=question, payload={"amount": 250}, return_outcome=True))
    task = await people.answer(question, {"approved": True, "note": "fine"})
    decision, outcome = await asking
    assert decision == Decision(approved=True, note="fine")
    assert (outcome.task_id, outcome.completed_by_email) == (task["id"], "anna@example.com")
    assert outcome.completed_via_channel == "dashboard"
    assert task["payload"] == {"amount": 250}


async def test_same_key_after_a_restart(ask: Ask, people: People, question: str) -> None:
    """A script that is started again with its key gets the stored answer, and nobody is asked twice."""
    asking = asyncio.create_task(ask(task=question, idempotency_key=question))
    await people.answer(question, {"approved": True})
    assert (await asking).approved is True
    assert (await ask(task=question, idempotency_key=question)).approved is True
    assert len(await people.find(question)) == 1


async def test_progress_names_link_and_key(
    ask: Ask, people: People, humans: HumansServer, question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """While waiting, stderr says where to answer and how to pick the question up; stdout stays the script's own."""
    asking = asyncio.create_task(ask(task=question, idempotency_key=f"key-{question}"))
    task = await people.answer(question, {"approved": True})
    await asking
    said = capsys.readouterr()
    assert f"{humans.url}/task?id={task['id']}" in said.err
    assert f"key-{question}" in said.err
    assert said.out == ""


async def test_no_progress(ask: Ask, people: People, question: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`progress=False` says nothing."""
    asking = asyncio.create_task(ask(task=question, progress=False))
    await people.answer(question, {"approved": True})
    await asking
    assert capsys.readouterr().err == ""


async def test_cancelled(ask: Ask, people: People, question: str) -> None:
    """An operator who cancels the task ends the wait with a typed error that carries the outcome."""
    asking = asyncio.create_task(ask(task=question))
    (task,) = await people.find(question)
    await people.cancel(task["id"])
    with pytest.raises(TaskCancelledError) as cancelled:
        await asking
    assert cancelled.value.task_id == task["id"]
    assert cancelled.value.outcome.status == "cancelled"


async def test_invalid_answer(ask: Ask, people: People, question: str) -> None:
    """The server takes any answer; one of another shape is an error that says what is wrong with it."""
    asking = asyncio.create_task(ask(task=question))
    await people.answer(question, {"approved": "maybe"})
    with pytest.raises(ResponseSchemaError) as invalid:
        await asking
    assert invalid.value.problems[0].startswith("approved: ")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"api_key": "wrong"}, AuthenticationError, id="wrong-token"),
        pytest.param({"server_url": "not an address"}, SettingsError, id="no-address"),
        pytest.param({"task_metadata": {"k": 1}}, TaskRejectedError, id="refused-by-the-server"),
        pytest.param({"timeout_seconds": 1}, InvalidTaskError, id="refused-before-sending"),
        pytest.param({"response_schema": bool}, InvalidTaskError, id="no-named-fields"),
    ],
)
async def test_refusals_are_immediate(ask: Ask, question: str, options: dict[str, Any], error: type[Exception]) -> None:
    """What cannot work by waiting is an error at once."""
    with pytest.raises(error):
        await asyncio.wait_for(ask(task=question, **options), 10)


async def test_unknown_task(humans: HumansServer) -> None:
    """404 is typed, in both clients."""
    async with TaskClient(humans.url, humans.token) as client:
        with pytest.raises(TaskNotFoundError):
            await client.get("nothing")
        with pytest.raises(TaskNotFoundError):
            await client.poll("nothing", seconds=1)
    with SyncTaskClient(humans.url, humans.token) as sync_client, pytest.raises(TaskNotFoundError):
        await asyncio.to_thread(sync_client.cancel, "nothing")


async def test_cancel_of_an_answered_task_returns_the_answer(
    humans: HumansServer, people: People, question: str
) -> None:
    """Cancelling too late loses nothing: the answer comes back."""
    asking = asyncio.create_task(
        await_human(task=question, response_schema=Decision, server_url=humans.url, api_key=humans.token)
    )
    task = await people.answer(question, {"approved": True})
    await asking
    async with TaskClient(humans.url, humans.token) as client:
        outcome = await client.cancel(task["id"])
    assert (outcome.status, outcome.response) == ("completed", {"approved": True})
