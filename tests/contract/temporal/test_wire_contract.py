"""The wire contract of docs/temporal-wire.md, as used by a workflow without this package, in both modes."""

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from devservers import TemporalServer
from temporalio.client import ActivityHandle, Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTaskActivities, HumanTasksActivityPlugin, TemporalEngine, names
from awaithumans_core import Outcome, TargetGone
from tests.support.foreign_workflow import AskByName
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import result, start, until_open

DOCUMENT = (Path(__file__).parents[3] / "docs" / "temporal-wire.md").read_text()


def asks(question: str, **fields: Any) -> dict[str, Any]:
    return {
        "task": question,
        "payload": {"amount": 250},
        "payload_schema": {"type": "object"},
        "response_schema": {"type": "object", "properties": {"approved": {"type": "boolean"}}},
        "timeout_seconds": 900,
        "idempotency_key": f"by-name:{question}",
    } | fields


@pytest.fixture
async def foreign(relay: RunningRelay, temporal: TemporalServer, question: str) -> AsyncGenerator[Client]:
    """Yield a client without plugins, with one worker for the workflow and one for the activities."""
    client = await Client.connect(temporal.address)
    activities = Worker(client, task_queue=f"{question} python", plugins=[HumanTasksActivityPlugin(relay.settings)])
    async with Worker(client, task_queue=question, workflows=[AskByName]), activities:
        yield client


async def test_workflow_that_calls_by_name_gets_the_documented_outcome(
    foreign: Client, people: People, question: str, via: str
) -> None:
    """A workflow that calls the activities by name receives the outcome with the documented fields."""
    handle = await start(foreign, AskByName.run, asks(question), via, f"{question} python", task_queue=question)
    await people.answer(question, {"approved": True})
    outcome = await result(handle)
    assert outcome["status"] == "completed"
    assert outcome["response"] == {"approved": True}
    assert outcome["idempotency_key"] == f"by-name:{question}"
    assert outcome.keys() <= set(re.findall(r"^\| `(\w+)`", DOCUMENT, re.MULTILINE))


async def test_withdraw_called_by_name_cancels_the_task(
    foreign: Client, people: People, relay: RunningRelay, question: str
) -> None:
    """`awaithumans.withdraw`, called by name, cancels the task."""
    handle = await start(foreign, AskByName.run, asks(question), "signal", f"{question} python", task_queue=question)
    (task,) = await people.find(question)
    await until_open(relay, task)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_seconds", None),
        ("timeout_seconds", "900"),
        ("timeout_seconds", 10**20),
        ("idempotency_key", 7),
        ("awaithumans_ask_within", "soon"),
        ("awaithumans_carried", {"workflow_id": "another"}),
    ],
)
async def test_unusable_input_fails_at_once_and_names_the_field(
    foreign: Client, question: str, via: str, field: str, value: Any
) -> None:
    """A missing field or one of another type fails the activity at once with its name."""
    body = asks(question, **{field: value})
    handle = await start(foreign, AskByName.run, body, via, f"{question} python", task_queue=question)
    with pytest.raises(WorkflowFailureError) as failed:
        await result(handle, 20)
    assert isinstance(activity := failed.value.cause, ActivityError)
    assert isinstance(cause := activity.cause, ApplicationError)
    assert cause.type == "InvalidTaskError"
    assert field in cause.message


async def start_standalone(foreign: Client, question: str) -> ActivityHandle[dict[str, Any]]:
    """Start the activity by its name, without a workflow."""
    return await foreign.start_activity(
        "awaithumans.await_human",
        asks(question),
        id=question,
        task_queue=f"{question} python",
        start_to_close_timeout=timedelta(hours=1),
        result_type=dict[str, Any],
    )


async def test_standalone_activity_gets_the_outcome(
    foreign: Client, people: People, relay: RunningRelay, question: str
) -> None:
    """`awaithumans.await_human` started by a client gets the outcome, and a second delivery changes nothing."""
    handle = await start_standalone(foreign, question)
    (task,) = await people.find(question)
    (wait,) = await relay.wait_for(task["id"], "open")
    await people.complete(task["id"], {"approved": True})
    outcome = await asyncio.wait_for(handle.result(), 60)
    assert outcome["response"] == {"approved": True}
    engine = TemporalEngine(foreign)
    await engine.deliver(wait.route, Outcome.model_validate(outcome))
    assert await engine.has_answer(wait.route) is True


async def test_ended_standalone_activity_is_orphaned(
    foreign: Client, people: People, relay: RunningRelay, question: str
) -> None:
    """The wait of an ended standalone activity is orphaned, and its answer cannot be delivered."""
    handle = await start_standalone(foreign, question)
    (task,) = await people.find(question)
    (wait,) = await relay.wait_for(task["id"], "open")
    engine = TemporalEngine(foreign)
    assert await engine.orphaned(wait.route) is None
    await handle.terminate()
    assert "terminated" in str(await engine.orphaned(wait.route))
    answer = Outcome(task_id=task["id"], status="completed", response={"approved": True})
    with pytest.raises(TargetGone, match="has ended"):
        await engine.deliver(wait.route, answer)


def test_every_name_and_field_is_documented() -> None:
    """The wire document has every activity, signal, query and outcome field."""
    activities = [
        names.OPEN_WAIT,
        names.CLOSE_WAIT,
        names.LAST_LOOK,
        names.AWAIT_HUMAN,
        names.WITHDRAW,
        names.MEASURE,
    ]
    assert len(HumanTaskActivities().all()) == len(activities)
    for name in (*activities, names.SIGNAL, names.QUERY, names.ASK_WITHIN, *Outcome.model_fields):
        assert f"`{name}`" in DOCUMENT
