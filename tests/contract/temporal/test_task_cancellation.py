"""A caller that stops waiting cancels its task, in both modes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from devservers import HumansServer, TemporalServer, free_port
from fastapi import FastAPI
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_core import HumanTask, Settings, TaskClient
from tests.support.people import People
from tests.support.relay import RunningRelay, served, settings_for
from tests.support.temporal import result, start, until_waiting
from tests.support.workflows import WORKFLOWS, Ask, AskAndEnd, AskImpatiently, AskUncaught, Decision

pytestmark = pytest.mark.edges


@pytest.mark.parametrize("end", ["returns", "fails"])
async def test_run_that_ends_cancels_its_open_task(
    client: Client, people: People, question: str, via: str, end: str
) -> None:
    """However a workflow ends with a question open, its task is cancelled."""
    handle = await start(client, AskAndEnd.run, {"task": question, "via": via}, end)
    if end == "fails":
        with pytest.raises(WorkflowFailureError) as failed:
            await result(handle)
        assert "something else" in str(failed.value.cause)
    else:
        assert await result(handle) == "returns"
    (task,) = await people.find(question)
    assert task["status"] == "cancelled"


async def test_cancelled_workflow_cancels_its_task(client: Client, people: People, question: str, via: str) -> None:
    """Cancelling the workflow cancels its task."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_waiting(handle)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as cancelled:
        await result(handle)
    assert isinstance(cancelled.value.cause, CancelledError)
    assert (await people.task(task["id"]))["status"] == "cancelled"


@pytest.mark.parametrize("end", ["returns", "is cancelled"])
async def test_task_is_cancelled_by_key_while_the_relay_is_unreachable(
    people: People, humans: HumansServer, temporal: TemporalServer, question: str, via: str, end: str
) -> None:
    """A task is cancelled by its key even if its registration never reached the relay."""
    settings = settings_for(humans, f"http://127.0.0.1:{free_port()}")
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])
    async with Worker(client, task_queue=question, workflows=WORKFLOWS):
        workflow = AskAndEnd.run if end == "returns" else AskUncaught.run
        arguments = ({"task": question, "via": via}, end) if end == "returns" else ({"task": question, "via": via},)
        handle = await start(client, workflow, *arguments, task_queue=question)
        (task,) = await people.find(question)
        if end == "is cancelled":
            await handle.cancel()
            with pytest.raises(WorkflowFailureError):
                await result(handle)
        else:
            await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"


async def test_abandoned_wait_cancels_its_task(client: Client, people: People, question: str, via: str) -> None:
    """A coroutine that stops waiting cancels its task, and the workflow continues."""
    handle = await start(client, AskImpatiently.run, {"task": question, "via": via})
    assert await result(handle) == "went on without an answer"
    (task,) = await people.find(question)
    assert task["status"] == "cancelled"


@pytest.fixture(scope="module")
async def not_a_relay() -> AsyncGenerator[str]:
    """Serve an application that refuses every registration."""
    port = free_port()
    async with served(FastAPI(), port, log_level="critical"):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def giving_up(temporal: TemporalServer, queue: str, settings: Settings) -> AsyncGenerator[Client]:
    """Run a worker that gives up a question at the first refusal."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings, setting_errors="fail")])
    async with Worker(client, task_queue=queue, workflows=WORKFLOWS):
        yield client


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
async def test_task_of_an_earlier_attempt_is_cancelled_when_asking_fails(
    people: People,
    humans: HumansServer,
    temporal: TemporalServer,
    not_a_relay: str,
    question: str,
    via: str,
    named: bool,  # noqa: FBT001 - the parameter is the case
) -> None:
    """A task created while the relay was down is cancelled when another worker is refused for good."""
    options = {"task": question, "via": via} | ({"idempotency_key": f"key of {question}"} if named else {})
    down = settings_for(humans, f"http://127.0.0.1:{free_port()}")
    async with giving_up(temporal, question, down) as client:
        handle = await start(client, AskUncaught.run, options, task_queue=question)
        (task,) = await people.find(question)
    assert (await people.task(task["id"]))["status"] == "created", "nothing is cancelled between two attempts"
    async with giving_up(temporal, question, settings_for(humans, not_a_relay)):
        with pytest.raises(WorkflowFailureError):
            await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"


async def created_by_another(humans: HumansServer, question: str) -> str:
    """Create a question under another caller's key and return the task id."""
    asked = HumanTask(task=question, response_schema=Decision, idempotency_key=question)
    async with TaskClient(humans.url, humans.token) as client:
        return (await client.create(asked)).task_id


async def test_shared_task_stays_open_when_one_caller_gives_up(
    people: People, humans: HumansServer, temporal: TemporalServer, not_a_relay: str, question: str, via: str
) -> None:
    """A caller that gives up does not cancel a task that another caller still waits for."""
    task_id = await created_by_another(humans, question)
    async with giving_up(temporal, question, settings_for(humans, not_a_relay)) as client:
        options = {"task": question, "via": via, "idempotency_key": question}
        with pytest.raises(WorkflowFailureError):
            await result(await start(client, AskUncaught.run, options, task_queue=question))
    assert (await people.task(task_id))["status"] == "created"


async def test_shared_task_stays_open_when_one_caller_is_cancelled(
    client: Client, people: People, humans: HumansServer, relay: RunningRelay, question: str, via: str
) -> None:
    """Cancelling a workflow that joined another caller's question does not cancel that caller's task."""
    task_id = await created_by_another(humans, question)
    handle = await start(client, AskUncaught.run, {"task": question, "via": via, "idempotency_key": question})
    await relay.wait_for(task_id, "open")
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await result(handle)
    assert (await people.task(task_id))["status"] == "created"
