"""Answers to a paused workflow, in both modes."""

import pytest
from temporalio.api.workflowservice.v1 import PauseWorkflowExecutionRequest, UnpauseWorkflowExecutionRequest
from temporalio.client import Client

from awaithumans_adapters.temporal import TemporalEngine
from tests.support.callers import TemporalCaller
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import YES, result, start, until_open
from tests.support.workflows import Ask

pytestmark = pytest.mark.edges


async def test_answer_to_a_paused_workflow_is_delivered_at_once(
    client: Client, caller: TemporalCaller, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """The first attempt delivers; the workflow continues when unpaused, and is not orphaned meanwhile."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_open(relay, task)
    whom = {"namespace": "default", "workflow_id": handle.id, "identity": "tests", "reason": "for a while"}
    await client.workflow_service.pause_workflow_execution(PauseWorkflowExecutionRequest(**whom, request_id="1"))
    (wait,) = await relay.store.queries.find(task["id"])
    engine = TemporalEngine(client)
    assert await engine.orphaned(wait.route) is None
    await people.complete(task["id"], YES)
    (wait,) = await relay.wait_for(task["id"], "delivered")
    assert (wait.attempts, wait.last_error) == (1, None)
    assert await engine.has_answer(wait.route) is (
        via == "activity"
    )  # the relay sends the signal again, and the workflow ignores it
    await client.workflow_service.unpause_workflow_execution(UnpauseWorkflowExecutionRequest(**whom, request_id="2"))
    assert (await result(handle))["approved"] is True
    assert caller.acts[handle.id] == 1
