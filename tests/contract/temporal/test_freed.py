"""Who stops waiting frees the person, in both modes."""

import pytest
from examples.demo.servers import HumansServer, TemporalServer, free_port
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from tests.support.people import People
from tests.support.relay import settings_for
from tests.support.temporal import result, start, until_parked
from tests.support.workflows import WORKFLOWS, Ask, AskAndEnd, AskImpatiently, AskUncaught


@pytest.mark.parametrize("end", ["returns", "fails"])
async def test_a_run_that_ends_frees_the_person(
    client: Client, people: People, question: str, via: str, end: str
) -> None:
    """However a workflow ends with a question open, nobody works for it any more."""
    handle = await start(client, AskAndEnd.run, {"task": question, "via": via}, end)
    if end == "fails":
        with pytest.raises(WorkflowFailureError) as failed:
            await result(handle)
        assert "something else" in str(failed.value.cause)
    else:
        assert await result(handle) == "returns"
    (task,) = await people.find(question)
    assert task["status"] == "cancelled"


async def test_cancelled_workflow_frees_the_person(client: Client, people: People, question: str, via: str) -> None:
    """Cancelling the workflow cancels the task."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_parked(handle)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as cancelled:
        await result(handle)
    assert isinstance(cancelled.value.cause, CancelledError)
    assert (await people.task(task["id"]))["status"] == "cancelled"


@pytest.mark.parametrize("end", ["returns", "is cancelled"])
async def test_people_are_freed_while_the_relay_is_away(
    people: People, humans: HumansServer, temporal: TemporalServer, question: str, via: str, end: str
) -> None:
    """Whoever has been asked is freed by the question's key, also when its registration never got through."""
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


async def test_abandoned_wait_frees_the_person(client: Client, people: People, question: str, via: str) -> None:
    """A coroutine that stops waiting by itself cancels the task, and the workflow goes on."""
    handle = await start(client, AskImpatiently.run, {"task": question, "via": via})
    assert await result(handle) == "went on without an answer"
    (task,) = await people.find(question)
    assert task["status"] == "cancelled"
