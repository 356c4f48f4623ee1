"""The client's promises, on the real server and on the fake, with and without an event loop."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from typing import Any

import pytest
from devservers import HumansServer

from awaithumans_core import (
    AuthenticationError,
    HumanTask,
    InvalidTaskError,
    QuestionChangedError,
    ResponseSchemaError,
    ServerUnreachableError,
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
from tests.support.servers import TaskServer
from tests.support.workflows import Decision

Ask = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest, server: TaskServer) -> Ask:
    """Return `await_human`, or `await_human_sync` run in a thread."""

    async def run(**options: Any) -> Any:
        address = {"server_url": server.url, "api_key": server.token}
        given: dict[str, Any] = {**address, "response_schema": Decision, **options}
        if request.param == "async":
            return await await_human(**given)
        return await asyncio.to_thread(lambda: await_human_sync(**given))

    return run


async def test_answer_is_typed_and_names_who_gave_it(ask: Ask, somebody: People, question: str) -> None:
    """The answer is an instance of the response class, and the outcome names who gave it."""
    asking = asyncio.create_task(ask(task=question, payload={"amount": 250}, return_outcome=True))
    task = await somebody.answer(question, {"approved": True, "note": "fine"})
    decision, outcome = await asking
    assert decision == Decision(approved=True, note="fine")
    assert (outcome.task_id, outcome.completed_by_email) == (task["id"], "anna@example.com")
    assert outcome.completed_via_channel == "dashboard"
    assert task["payload"] == {"amount": 250}


async def test_restarted_script_gets_the_stored_answer_for_its_key(ask: Ask, somebody: People, question: str) -> None:
    """A script that is started again with its key gets the stored answer, and no second task is created."""
    asking = asyncio.create_task(ask(task=question, idempotency_key=question))
    await somebody.answer(question, {"approved": True})
    assert (await asking).approved is True
    assert (await ask(task=question, idempotency_key=question)).approved is True
    assert len(await somebody.find(question)) == 1


async def test_key_of_another_question_is_refused(ask: Ask, somebody: People, question: str) -> None:
    """The answer to one payload is never given to a question about another."""
    asking = asyncio.create_task(ask(task=question, payload={"amount": 1}, idempotency_key=question))
    await somebody.answer(question, {"approved": True})
    await asking
    with pytest.raises(QuestionChangedError):
        await ask(task=question, payload={"amount": 1000}, idempotency_key=question)


async def test_progress_on_a_pipe_is_one_line_on_stderr(
    ask: Ask, somebody: People, server: TaskServer, question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal stderr gets one line with the link and the key, and stdout stays free for the script."""
    asking = asyncio.create_task(ask(task=question))
    task = await somebody.answer(question, {"approved": True})
    await asking
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert f"{server.url}/task?id={task['id']}" in said.err
    assert f"pick up again with idempotency_key={task['idempotency_key']!r}" in said.err
    assert said.out == ""


async def test_progress_false_writes_nothing(
    ask: Ask, somebody: People, question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`progress=False` writes nothing."""
    asking = asyncio.create_task(ask(task=question, progress=False))
    await somebody.answer(question, {"approved": True})
    await asking
    assert capsys.readouterr().err == ""


async def test_cancelled_task_raises_with_its_outcome(ask: Ask, somebody: People, question: str) -> None:
    """An operator who cancels the task ends the wait with a typed error that carries the outcome."""
    asking = asyncio.create_task(ask(task=question))
    (task,) = await somebody.find(question)
    await somebody.cancel(task["id"])
    with pytest.raises(TaskCancelledError) as cancelled:
        await asking
    assert cancelled.value.task_id == task["id"]
    assert cancelled.value.outcome.status == "cancelled"


async def test_answer_that_does_not_fit_is_an_error(ask: Ask, somebody: People, question: str) -> None:
    """An answer of another shape raises an error with the answer and the reason."""
    asking = asyncio.create_task(ask(task=question))
    await somebody.answer(question, {"approved": "maybe"})
    with pytest.raises(ResponseSchemaError) as invalid:
        await asking
    assert invalid.value.problems[0].startswith("approved: ")
    assert invalid.value.outcome.response == {"approved": "maybe"}


async def test_invalid_answer_is_asked_for_again_under_a_derived_key(ask: Ask, somebody: People, question: str) -> None:
    """With `max_reasks` the person is asked again under a derived key, and learns what was wrong."""
    key = f"key-{question}"
    asking = asyncio.create_task(ask(task=question, idempotency_key=key, payload={"amount": 5}, max_reasks=1))
    await somebody.answer(question, {"approved": "maybe"})
    again = await somebody.by_key(f"{key}:reask:1")
    assert again["task"].startswith(question)
    assert "Approved: Input should be a valid boolean" in again["task"]
    assert again["payload"] == {"amount": 5}
    await somebody.complete(again["id"], {"approved": False})
    assert (await asking).approved is False
    # A caller that resumes the question gets the same answer.
    repeated = await ask(task=question, idempotency_key=key, payload={"amount": 5}, max_reasks=1)
    assert repeated.approved is False


async def test_invalid_answer_after_max_reasks_is_an_error(ask: Ask, somebody: People, question: str) -> None:
    """When the last reask brings no usable answer, the error describes the last answer."""
    key = f"key-{question}"
    asking = asyncio.create_task(ask(task=question, idempotency_key=key, max_reasks=1))
    await somebody.answer(question, {"approved": "maybe"})
    again = await somebody.by_key(f"{key}:reask:1")
    await somebody.complete(again["id"], {})
    with pytest.raises(ResponseSchemaError) as invalid:
        await asking
    assert invalid.value.task_id == again["id"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"api_key": "wrong"}, AuthenticationError, id="wrong-token"),
        pytest.param({"server_url": "not an address"}, SettingsError, id="no-address"),
        pytest.param({"task_metadata": {"k": 1}}, TaskRejectedError, id="refused-by-the-server"),
        pytest.param({"timeout_seconds": 1}, InvalidTaskError, id="refused-before-sending"),
        pytest.param({"response_schema": bool}, InvalidTaskError, id="no-named-fields"),
        pytest.param({"max_reasks": -1}, InvalidTaskError, id="reasks-below-zero"),
    ],
)
async def test_unusable_question_is_refused_at_once(
    ask: Ask, question: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """A mistake that waiting cannot correct is an error at once."""
    with pytest.raises(error):
        await asyncio.wait_for(ask(task=question, **options), 10)


async def test_cancelled_coroutine_leaves_the_question_open(
    server: TaskServer, somebody: People, question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cancellation is immediate, the question stays open, and stderr shows how to resume it."""
    address: Any = {"server_url": server.url, "api_key": server.token}
    asking = asyncio.create_task(
        await_human(task=question, response_schema=Decision, idempotency_key=question, **address)
    )
    (task,) = await somebody.find(question)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asking, 2)
    assert (await somebody.task(task["id"]))["status"] == "created"
    assert capsys.readouterr().err.endswith("stopped waiting; the question stays open, and the same call picks it up\n")
    await somebody.complete(task["id"], {"approved": True})
    answer = await await_human(task=question, response_schema=Decision, idempotency_key=question, **address)
    assert answer.approved is True


async def test_cancel_on_interrupt_cancels_the_task(
    server: TaskServer, somebody: People, question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `cancel_on_interrupt` the task is cancelled when its caller is."""
    address: Any = {"server_url": server.url, "api_key": server.token}
    asking = asyncio.create_task(
        await_human(task=question, response_schema=Decision, cancel_on_interrupt=True, **address)
    )
    (task,) = await somebody.find(question)
    with suppress(TimeoutError):
        await asyncio.wait_for(asking, 0.2)
    assert asking.cancelled()
    assert (await somebody.task(task["id"]))["status"] == "cancelled"
    assert "no person is asked any more" in capsys.readouterr().err


async def test_withdraw_cancels_by_key_without_a_task_id(server: TaskServer, somebody: People, question: str) -> None:
    """A question is cancelled by its key, even if the caller does not know whether its task exists."""
    task = HumanTask(task=question, response_schema=Decision, idempotency_key=question)
    async with TaskClient(server.url, server.token) as client:
        await client.create(task)
        assert (await client.withdraw(task)).status == "cancelled"
    (found,) = await somebody.find(question)
    assert found["status"] == "cancelled"


async def test_withdraw_ends_the_second_task_that_a_create_under_way_left(humans: HumansServer, question: str) -> None:
    """The server can keep an open task beside a cancelled one of its key, and fails at each create with that key."""
    first, second = (
        HumanTask(task=question, response_schema=Decision, idempotency_key=f"{question} {number}") for number in (1, 2)
    )
    async with TaskClient(humans.url, humans.token, patience=0) as client:
        await client.create(first)
        await client.withdraw(first)
        task_id = (await client.create(second)).task_id
        with closing(sqlite3.connect(humans.folder / "tasks.db", timeout=30)) as database, database:
            values = first.idempotency_key, second.idempotency_key
            database.execute("UPDATE tasks SET idempotency_key = ? WHERE idempotency_key = ?", values)
        with pytest.raises(ServerUnreachableError):
            await client.create(first)
        assert (await client.withdraw(first)).status == "cancelled"
        assert (await client.get(task_id)).status == "cancelled"


async def test_unknown_task_is_a_typed_error(server: TaskServer) -> None:
    """A 404 becomes a typed error in both clients."""
    async with TaskClient(server.url, server.token) as client:
        with pytest.raises(TaskNotFoundError):
            await client.get("nothing")
        with pytest.raises(TaskNotFoundError):
            await client.poll("nothing", seconds=1)
    with SyncTaskClient(server.url, server.token) as sync_client, pytest.raises(TaskNotFoundError):
        await asyncio.to_thread(sync_client.cancel, "nothing")


async def test_cancel_of_an_answered_task_returns_the_answer(
    server: TaskServer, somebody: People, question: str
) -> None:
    """Cancelling an answered task returns its answer."""
    asking = asyncio.create_task(
        await_human(task=question, response_schema=Decision, server_url=server.url, api_key=server.token)
    )
    task = await somebody.answer(question, {"approved": True})
    await asking
    async with TaskClient(server.url, server.token) as client:
        outcome = await client.cancel(task["id"])
    assert (outcome.status, outcome.response) == ("completed", {"approved": True})
