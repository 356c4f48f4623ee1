"""Questions across runs: replayed, continued as new, reset and retried, in both modes."""

import asyncio
import gc
import uuid
import warnings
from datetime import timedelta
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_core import Outcome, Route, TargetGone
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import YES, PeopleWithPromptChecks, next_run, result, start, until_open, until_waiting
from tests.support.workflows import (
    WORKFLOWS,
    AskAcrossRuns,
    AskAndEnd,
    AskBesideADynamicHandler,
    AskNamedAndUnnamed,
    AskSeveral,
    AskThenForget,
    AskUncaught,
)


@pytest.mark.edges
async def test_replay_without_a_cache_asks_the_same_questions(
    people: People, relay: RunningRelay, temporal: TemporalServer, via: str
) -> None:
    """A worker without a cache replays the workflow at every step and asks the same questions."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    name = f"q-{uuid.uuid4().hex}"
    async with Worker(client, task_queue=name, workflows=WORKFLOWS, max_cached_workflows=0):
        handle = await client.start_workflow(AskSeveral.run, args=[name, via], id=name, task_queue=name)
        for question, approved in [("first", True), ("second", False), ("left", True), ("right", False)]:
            await people.answer(f"{name}: {question}?", {"approved": approved})
        assert await result(handle) == [True, False, True, False]


async def test_run_evicted_from_the_cache_leaves_no_coroutine_behind(
    people: People, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """A worker that evicts runs with open waits and resumes them later logs no warning.

    Both questions are asked in tasks beside the workflow's own code, which is stopped first.
    """
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Worker(client, task_queue=question, workflows=WORKFLOWS, max_cached_workflows=0):
            handle = await start(client, AskNamedAndUnnamed.run, {"task": question, "via": via}, task_queue=question)
            for task in await people.find(question, count=2):
                await people.complete(task["id"], YES)
            assert await result(handle) == {"named": True, "unnamed": True}
        gc.collect()
    assert [str(each.message) for each in caught if "never awaited" in str(each.message)] == []


async def test_open_wait_continues_in_the_next_run(
    client: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """A workflow that continues as new twice keeps its task, and the answer arrives."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    for _ in range(2):
        run = (await handle.describe()).run_id
        await until_waiting(handle)
        await handle.signal(AskAcrossRuns.go_on)
        async with asyncio.timeout(60):
            while (await handle.describe()).run_id == run:
                await asyncio.sleep(0.05)
    # An activity does not report which task it waits for. Signal mode does, once this run has opened the wait: from
    # then on only a signal brings the answer.
    known = task["id"] if via == "signal" else None
    async with asyncio.timeout(60):
        while [pending["task_id"] for pending in await until_waiting(handle)] != [known]:
            await asyncio.sleep(0.05)
    await people.complete(task["id"], YES)
    assert await result(handle) == [3, True, "anna@example.com"]
    assert len(await people.find(question)) == 1
    await relay.wait_for(task["id"], "delivered")


async def test_delivery_to_a_workflow_that_ended_with_its_answer_succeeds(
    client: Client, people: People, question: str, via: str
) -> None:
    """If the workflow got the answer in another way and ended, the relay's delivery is no failure."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    first = (await handle.describe()).run_id
    await until_waiting(handle)
    await handle.signal(AskAcrossRuns.go_on)
    async with asyncio.timeout(60):
        while (await handle.describe()).run_id == first:
            await asyncio.sleep(0.05)
    await people.complete(task["id"], YES)
    assert await result(handle) == [2, True, "anna@example.com"]
    target = {"namespace": "default", "workflow_id": handle.id}
    if via == "activity":
        target |= {"activity_id": "human:of-the-first-run", "run_id": first}
    route = Route("temporal", target, task["idempotency_key"])
    answer = Outcome(
        task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=task["idempotency_key"]
    )
    engine = TemporalEngine(client)
    await engine.deliver(route, answer)
    with pytest.raises(TargetGone):
        await engine.deliver(route, answer.model_copy(update={"task_id": "another"}))


async def test_answer_between_two_runs_is_kept(
    client: Client, people: People, relay: RunningRelay, humans: HumansServer, question: str, via: str
) -> None:
    """An answer given between two runs is kept, although a dynamic handler takes the signal."""
    handle = await start(client, AskBesideADynamicHandler.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_open(relay, task)
    run = (await handle.describe()).run_id
    await handle.signal("something", 1)
    async with asyncio.timeout(60):
        while (await handle.describe()).run_id == run:
            await asyncio.sleep(0.05)
    await people.complete(task["id"], YES)
    outcome = Outcome(
        task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=task["idempotency_key"]
    )
    if via == "signal":
        route = Route("temporal", {"namespace": "default", "workflow_id": handle.id}, task["idempotency_key"])
        await TemporalEngine(client).deliver(route, outcome)
    assert await result(handle) == [True, []]
    assert len(await people.find(question)) == 1


async def test_equal_questions_keep_their_tasks_in_the_next_run(
    client: Client, people: People, question: str, via: str
) -> None:
    """Of two equal questions, one with a key of its own, neither takes the other's task in the next run."""
    handle = await start(client, AskNamedAndUnnamed.run, {"task": question, "via": via})
    tasks = await people.find(question, count=2)
    await next_run(handle, AskNamedAndUnnamed.go_on)
    for task in tasks:
        await people.complete(task["id"], {"approved": task["idempotency_key"] == question})
    assert await result(handle) == {"named": True, "unnamed": False}
    assert len(await people.find(question)) == 2


async def test_header_of_the_next_run_holds_no_question_text(
    client: Client, people: People, question: str, via: str
) -> None:
    """The header for the next run, which a codec leaves in clear, has only keys, ids and times."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": via, "payload": {"secret": "hush"}})
    (task,) = await people.find(question)
    await until_waiting(handle)
    await next_run(handle, AskAcrossRuns.go_on)
    first = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    (handed_on,) = [payload.data.decode() for payload in first.header.fields.values()]
    assert task["idempotency_key"] in handed_on
    assert question not in handed_on
    assert "hush" not in handed_on
    await handle.cancel()


@pytest.mark.parametrize("then", ["ends", "asks again"])
async def test_question_that_the_next_run_does_not_ask_is_cancelled(
    client: Client, people: People, question: str, via: str, then: str
) -> None:
    """The task is cancelled when that run ends; if the run fails, its retry asks anew."""
    handle = await start(
        client,
        AskThenForget.run,
        {"task": question, "via": via},
        then,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
    )
    if then == "asks again":
        second = (await people.find(question, count=2))[0]
        await people.complete(second["id"], YES)
    assert await result(handle) == {"ends": "ends", "asks again": "yes"}[then]
    assert [task["status"] for task in await people.find(question)][-1] == "cancelled"


async def test_reset_run_waits_for_the_same_question(client: Client, people: People, question: str, via: str) -> None:
    """A run that is reset waits for the same task, and the answer reaches the new run."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_waiting(handle)
    await asyncio.sleep(0.5)
    history = (await handle.fetch_history()).events
    completed = [event.event_id for event in history if event.HasField("workflow_task_completed_event_attributes")]
    reset = ResetWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=str(handle.result_run_id)),
        reason="a test",
        workflow_task_finish_event_id=completed[-1],
        request_id=uuid.uuid4().hex,
    )
    await client.workflow_service.reset_workflow_execution(reset)
    current = client.get_workflow_handle(handle.id)
    await until_waiting(current)
    await people.complete(task["id"], YES)
    assert await result(current) is True
    assert len(await people.find(question)) == 1


async def reset_to_its_start(client: Client, handle: WorkflowHandle[Any, Any]) -> WorkflowHandle[Any, Any]:
    """Reset the workflow to its first workflow task."""
    run_id = (await handle.describe()).run_id
    history = (await client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()).events
    completed = [event.event_id for event in history if event.HasField("workflow_task_completed_event_attributes")]
    request = ResetWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=run_id),
        reason="a test",
        workflow_task_finish_event_id=completed[0],
        request_id=uuid.uuid4().hex,
    )
    await client.workflow_service.reset_workflow_execution(request)
    return client.get_workflow_handle(handle.id)


async def test_reset_after_an_end_without_an_answer_asks_anew(
    client: Client, people: PeopleWithPromptChecks, question: str, via: str
) -> None:
    """After a reset the ended question is asked anew, and its answer outlives the next reset."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_open(people.relay, task)
    await people.cancel(task["id"])
    with pytest.raises(WorkflowFailureError):
        await result(handle)
    current = await reset_to_its_start(client, handle)
    again = next(each for each in await people.find(question, count=2) if each["id"] != task["id"])
    assert again["idempotency_key"] == f"{task['idempotency_key']}:again:1"
    await people.complete(again["id"], YES)
    assert await result(current) is True
    assert await result(await reset_to_its_start(client, current)) is True
    assert len(await people.find(question, count=2)) == 2


async def test_question_asked_anew_after_a_reset_is_cancelled_with_its_workflow(
    client: Client, people: PeopleWithPromptChecks, question: str, via: str
) -> None:
    """Cancelling the workflow cancels a task that a reset has created."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_open(people.relay, task)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"
    current = await reset_to_its_start(client, handle)
    again = next(each for each in await people.find(question, count=2) if each["id"] != task["id"])
    await until_open(people.relay, again)
    await current.cancel()
    with pytest.raises(WorkflowFailureError):
        await result(current)
    assert (await people.task(again["id"]))["status"] == "cancelled"


async def test_retried_workflow_asks_its_own_question(client: Client, people: People, question: str, via: str) -> None:
    """The failed attempt's task is cancelled, and the retry asks a question of its own."""
    handle = await start(
        client,
        AskAndEnd.run,
        {"task": question, "via": via},
        "fails",
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
    )
    assert await result(handle) == "fails"
    tasks = await people.find(question, count=2)
    assert {task["status"] for task in tasks} == {"cancelled"}
