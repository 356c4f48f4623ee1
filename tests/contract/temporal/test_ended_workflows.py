"""An answer counts as delivered to an ended workflow only if that workflow took it."""

import asyncio
import uuid
from typing import Any

import pytest
from devservers import TemporalServer
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_core import Outcome, Route, TargetGone
from tests.contract.temporal.test_reworded_questions import deployed, waiting_workflow
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import YES, result, start, until_waiting
from tests.support.workflows import AskByRelease, AskUncaught

pytestmark = pytest.mark.edges


@pytest.fixture
async def deployer(relay: RunningRelay, temporal: TemporalServer) -> Client:
    return await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])


def ended(task: dict[str, Any], status: str = "completed", **fields: Any) -> Outcome:
    return Outcome(task_id=task["id"], idempotency_key=task["idempotency_key"], status=status, **fields)


async def route_of(relay: RunningRelay, task: dict[str, Any]) -> Route:
    (wait,) = await relay.store.queries.find(task["id"])
    return wait.route


async def test_answer_to_a_question_from_before_a_reset_is_not_delivered(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """After a reset a different question at the same place does not make the first answer count as delivered."""
    handle, task = await waiting_workflow(deployer, relay, people, question, via)
    route = await route_of(relay, task)
    current = deployer.get_workflow_handle(handle.id)
    async with deployed(deployer, question, "reworded"):
        await reset(deployer, handle)
        await people.answer(f"{question} (in other words)", YES)
        assert await result(current) == {"approved": True, "reworded": None}
    with pytest.raises(TargetGone):
        await TemporalEngine(deployer).deliver(route, ended(task, response=YES))


async def reset(client: Client, handle: WorkflowHandle[Any, Any]) -> None:
    """Reset the workflow to its beginning."""
    events = (await handle.fetch_history()).events
    first = next(event.event_id for event in events if event.HasField("workflow_task_completed_event_attributes"))
    request = ResetWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=str(handle.result_run_id)),
        reason="a test",
        workflow_task_finish_event_id=first,
        request_id=uuid.uuid4().hex,
    )
    await client.workflow_service.reset_workflow_execution(request)


async def test_answer_handed_on_to_a_run_that_did_not_ask_is_not_delivered(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A run that continues as new as the answer comes, and whose successor does not ask again, has not taken it."""
    async with deployed(deployer, question, "first"):
        options = {"across": True, "forgets": True}
        handle = await start(deployer, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        (task,) = await people.find(question)
        await relay.wait_for(task["id"], "open")
        await until_waiting(handle)
        await asyncio.sleep(0.3)
    await handle.signal(AskByRelease.go_on)
    await people.complete(task["id"], YES)
    await relay.wait_for(task["id"], "delivered")
    async with deployed(deployer, question, "first"):
        assert await result(deployer.get_workflow_handle(handle.id)) == {}
    with pytest.raises(TargetGone):
        await TemporalEngine(deployer).deliver(await route_of(relay, task), ended(task, response=YES))


async def test_answer_after_another_end_of_the_task_is_not_delivered(
    client: Client, relay: RunningRelay, people: People, via: str
) -> None:
    """A workflow that saw its task deleted or its response erased has not taken the answer."""
    for seen in ("not_found", "completed"):
        question = uuid.uuid4().hex
        handle = await start(client, AskUncaught.run, {"task": question, "via": via})
        (task,) = await people.find(question)
        await relay.wait_for(task["id"], "open")
        await asyncio.sleep(0.3)
        engine, route = TemporalEngine(client), await route_of(relay, task)
        await engine.deliver(route, ended(task, seen))
        with pytest.raises(WorkflowFailureError):
            await result(handle)
        if (via, seen) == ("signal", "completed"):  # Temporal treats this signal as one that the run already has
            continue
        with pytest.raises(TargetGone):
            await engine.deliver(route, ended(task, response=YES))


async def test_answer_to_a_workflow_terminated_before_it_saw_it_is_not_delivered(
    deployer: Client, relay: RunningRelay, people: People, question: str
) -> None:
    """A workflow terminated while its worker was down has not taken the answer.

    Temporal accepts a repeated signal without an error.
    """
    handle, task = await waiting_workflow(deployer, relay, people, question, "activity")
    await people.complete(task["id"], YES)
    await relay.wait_for(task["id"], "delivered")
    await handle.terminate()
    with pytest.raises(TargetGone):
        await TemporalEngine(deployer).deliver(await route_of(relay, task), ended(task, response=YES))


async def test_answer_to_another_workflow_with_the_same_id_is_not_delivered(
    client: Client, relay: RunningRelay, people: People, question: str
) -> None:
    """A new workflow under the same id does not take the answer to the first one's question."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": "activity"})
    (task,) = await people.find(question)
    await relay.wait_for(task["id"], "open")
    await handle.terminate()
    again = await start(client, AskUncaught.run, {"task": f"{question} again", "via": "activity"}, id=handle.id)
    await people.find(f"{question} again")
    with pytest.raises(TargetGone):
        await TemporalEngine(client).deliver(await route_of(relay, task), ended(task, response=YES))
    await again.terminate()
