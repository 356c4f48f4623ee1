"""`await_human` in Temporal workflows: history, errors and cancellation."""

import json
import uuid

import pytest
from devservers import HumansServer
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from awaithumans_adapters.temporal import await_human
from awaithumans_core import SettingsError
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import result, start, until_waiting
from tests.support.workflows import Ask, AskUncaught, Decision


async def test_secrets_stay_out_of_history(
    client: Client, people: People, relay: RunningRelay, humans: HumansServer
) -> None:
    """No token, key or callback URL is in the workflow's history."""
    handle = await start(client, Ask.run, {"task": "secret?"})
    await people.answer("secret?", {"approved": True})
    await result(handle)
    history = json.dumps((await handle.fetch_history()).to_json_dict())
    assert "secret?" in _decoded(history)
    (secret,) = relay.settings.relay_secret
    for hidden in (humans.token, humans.payload_key, secret.get_secret_value(), "/callbacks/"):
        assert hidden not in _decoded(history)


def _decoded(history: str) -> str:
    """Return a history with its base64 payloads in clear text."""
    import base64
    import re

    clear = [base64.b64decode(found).decode("utf-8", "replace") for found in re.findall(r'"data": "([^"]+)"', history)]
    return history + "\n".join(clear)


async def test_uncaught_error_fails_the_workflow(client: Client, people: People) -> None:
    """An uncaught error of `await_human` fails the workflow with its type instead of suspending it."""
    handle = await start(client, AskUncaught.run, {"task": "uncaught?"})
    (task,) = await people.find("uncaught?")
    await people.cancel(task["id"])
    with pytest.raises(WorkflowFailureError) as failed:
        await result(handle)
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "TaskCancelledError"


async def test_call_outside_a_workflow_is_refused() -> None:
    """A script or an activity that imports the workflows' `await_human` gets an error that names the right one."""
    with pytest.raises(SettingsError, match=r"In a script call awaithumans_core\.await_human"):
        await await_human(task="Approve?", response_schema=Decision)


async def test_malformed_question_fails_the_workflow_at_once(client: Client) -> None:
    """A question that cannot be asked fails the workflow at once with the reason."""
    handle = await start(client, AskUncaught.run, {"task": "short?", "timeout_seconds": 5})
    with pytest.raises(WorkflowFailureError) as failed:
        await result(handle)
    assert "60" in str(failed.value.cause)


async def test_workflow_cancelled_while_asking_leaves_no_open_task(client: Client, people: People) -> None:
    """A workflow that is cancelled while its task is being created leaves no open task."""
    handle = await start(client, Ask.run, {"task": "already gone?"})
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await result(handle)
    assert [task["status"] for task in await people.find("already gone?", count=0)] in ([], ["cancelled"])


async def test_key_of_another_question_is_refused(client: Client, people: People) -> None:
    """An approval of 10 is not an approval of 1000000, whatever key they are asked under."""
    key = f"k-{uuid.uuid4().hex}"
    small = await start(client, Ask.run, {"task": "pay?", "payload": {"amount": 10}, "idempotency_key": key})
    await people.complete((await people.by_key(key))["id"], {"approved": True})
    assert (await result(small))["approved"] is True
    large = await start(client, Ask.run, {"task": "pay?", "payload": {"amount": 1000000}, "idempotency_key": key})
    assert (await result(large))["error"] == "QuestionChangedError"


async def test_malformed_signal_is_ignored(client: Client, people: People) -> None:
    """A malformed outcome is no answer; the workflow takes the correct one after it."""
    handle = await start(client, AskUncaught.run, {"task": "malformed?"})
    await until_waiting(handle)
    for malformed in ({"status": 5}, "yes", None, [1]):
        await handle.signal("awaithumans.answer", malformed)
    await people.answer("malformed?", {"approved": True})
    assert await result(handle) is True
