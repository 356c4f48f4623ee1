"""Each Temporal workflow receives the answer to its own question, in both modes."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from devservers import TemporalServer
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_adapters.temporal.names import activity_id
from awaithumans_core import Outcome, Route, TargetGone
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import NO, YES, PeopleWithPromptChecks, failures, result, start, until_waiting
from tests.support.workflows import (
    AskBarely,
    AskInChild,
    AskLocally,
    AskSeveral,
    AskTwoOfThree,
    AskUncaught,
    AskUnderAnyKey,
    AskUnderOneKey,
    CountsRightly,
    CountsWrongly,
)


async def test_each_question_gets_its_own_answer(client: Client, people: People, question: str, via: str) -> None:
    """Two questions in sequence, then two in parallel, each receive the answer given to them."""
    handle = await start(client, AskSeveral.run, question, via)
    for which, approved in [("first", False), ("second", True)]:
        await people.answer(f"{question}: {which}?", {"approved": approved})
    await people.answer(f"{question}: right?", YES)
    await people.answer(f"{question}: left?", NO)
    assert await result(handle) == [False, True, False, True]


async def test_child_workflow_asks_and_returns_to_its_parent(
    client: Client, people: People, question: str, via: str
) -> None:
    """A child workflow can be the caller, and its parent gets the value that it returns."""
    handle = await start(client, AskInChild.run, {"task": question, "via": via})
    await people.answer(question, YES)
    assert (await result(handle))["approved"] is True


async def test_workflows_with_one_key_share_the_question(
    client: Client, people: People, question: str, via: str
) -> None:
    """Two workflows with the same key share one task, and each receives its answer."""
    options = {"task": question, "via": via, "idempotency_key": f"shared {question}"}
    handles = [await start(client, AskUncaught.run, options) for _ in range(2)]
    for handle in handles:
        await until_waiting(handle)
    (task,) = await people.find(question)
    await asyncio.sleep(0.5)  # both have registered
    await people.complete(task["id"], YES)
    assert [await result(handle) for handle in handles] == [True, True]


async def test_quorum_in_a_workflow_cancels_the_third_task(
    client: Client, people: People, question: str, via: str
) -> None:
    """Two of three approvals reach the quorum, and the third task is cancelled."""
    handle = await start(client, AskTwoOfThree.run, question, via)
    tasks = await people.find(question, count=3)
    for task in tasks[:2]:
        await people.complete(task["id"], YES, by=task["assign_to"]["email"])
    assert await result(handle) == [True, "yes", "yes"]
    assert (await people.task(tasks[2]["id"]))["status"] == "cancelled"


@pytest.mark.edges
async def test_quorum_counts_one_person_once(client: Client, people: People, question: str, via: str) -> None:
    """A second answer by the same person has no effect, now or on replay; a second person makes the quorum."""
    handle = await start(client, AskTwoOfThree.run, question, via)
    tasks = await people.find(question, count=3)
    for task in tasks[:2]:
        await people.complete(task["id"], YES, by="mallory@example.com")
    await people.complete(tasks[2]["id"], YES, by="c@example.com")
    told = await result(handle)
    assert (told[0], sorted(told[1:])) in [(True, ["nothing", "yes", "yes"]), (True, ["yes", "yes"])]
    await Replayer(workflows=[AskTwoOfThree], plugins=[HumanTasksPlugin()]).replay_workflow(
        await handle.fetch_history()
    )


@pytest.mark.edges
async def test_bug_in_a_quorum_cancels_no_task(
    people: PeopleWithPromptChecks, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """A workflow suspended by a bug keeps its votes and its open tasks, and continues once the bug is fixed."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    quick = timedelta(seconds=1)  # Temporal does not wait for the stopped worker
    async with Worker(
        client, task_queue=question, workflows=[CountsWrongly], sticky_queue_schedule_to_start_timeout=quick
    ):
        handle = await start(client, "Mended", question, via, task_queue=question)
        tasks = await people.find(question, count=3)
        await until_waiting(handle)
        await people.complete(tasks[0]["id"], YES, by="a@example.com")
        async with asyncio.timeout(60):
            while "aproved" not in str(await failures(handle)):
                await asyncio.sleep(0.1)
    assert [(await people.task(task["id"]))["status"] for task in tasks[1:]] == ["created", "created"]
    async with Worker(client, task_queue=question, workflows=[CountsRightly]):
        await people.complete(tasks[1]["id"], YES, by="b@example.com")
        assert await result(handle) is True


async def test_redelivery_to_an_ended_workflow_succeeds_once_it_had_the_answer(
    client: Client, people: People, question: str, via: str
) -> None:
    """Delivering again to a workflow that ended with this answer succeeds; any other answer raises TargetGone.

    A relay that is killed before it records a delivery makes the same delivery again.
    """
    handle = await start(client, AskUncaught.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    yes = Outcome(
        task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=task["idempotency_key"]
    )
    target = {"namespace": "default", "workflow_id": handle.id}
    target |= {"activity_id": activity_id(str(handle.result_run_id), 1)} if via == "activity" else {}
    route = Route("temporal", target, task["idempotency_key"])
    for _ in range(2):
        await TemporalEngine(client).deliver(route, yes)
        assert await result(handle) is True
    another = Route("temporal", target | ({"activity_id": "another"} if via == "activity" else {}), "another")
    with pytest.raises(TargetGone, match="has ended"):
        await TemporalEngine(client).deliver(another, yes.model_copy(update={"idempotency_key": "another"}))


async def test_activity_called_without_await_human_is_completed(client: Client, people: People, question: str) -> None:
    """An activity called without `await_human` is completed from outside, and checked again if that is lost."""
    handle = await start(client, AskBarely.run, question)
    await people.answer(question, YES)
    assert await result(handle) == {"approved": True}
    assert (await people.find(question))[0]["idempotency_key"].startswith(f"temporal:default:{handle.id}:")


async def test_answer_for_another_run_completes_no_activity(client: Client, people: People, question: str) -> None:
    """An activity with a generated id is answered in its own run only, because "1" names another one elsewhere."""
    handle = await start(client, AskBarely.run, question)
    (task,) = await people.find(question)
    foreign = Route(
        "temporal",
        {"namespace": "default", "workflow_id": handle.id, "activity_id": "1", "run_id": str(uuid.uuid4())},
        task["idempotency_key"],
    )
    with pytest.raises(TargetGone):
        await TemporalEngine(client).deliver(
            foreign,
            Outcome(
                task_id="x", status="completed", response={"approved": False}, idempotency_key=task["idempotency_key"]
            ),
        )
    await people.complete(task["id"], YES)
    assert await result(handle) == {"approved": True}


async def test_key_may_be_any_text(client: Client, people: People) -> None:
    """A caller's key is used unchanged, even if it equals the placeholder for a question without a key."""
    handles = [await start(client, AskUnderAnyKey.run, "Any text?", via) for via in ("signal", "activity")]
    await people.complete((await people.by_key("unnamed"))["id"], YES)
    assert [await result(handle) for handle in handles] == [True, True]
    assert len(await people.find("Any text?")) == 1


async def test_await_human_as_local_activity_is_refused(client: Client, people: People, question: str) -> None:
    """A local activity cannot be completed from outside, so it is refused before a task is created."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskLocally.run, question, "awaithumans.await_human"))
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.non_retryable
    assert "execute_activity_method" in str(cause)
    assert await people.find(question, count=0) == []


async def test_open_and_cancel_work_as_local_activities(client: Client, people: People, question: str) -> None:
    """Local activities create and cancel a task just as normal activities do."""
    opened = await result(await start(client, AskLocally.run, question, "awaithumans.open_wait"))
    (task,) = await people.find(question)
    assert opened["task_id"] == task["id"]
    closed = await result(await start(client, AskLocally.run, task["id"], "awaithumans.close_wait"))
    assert closed["task_id"] == task["id"]


@pytest.mark.edges
async def test_second_question_under_one_key_is_refused_alone(
    client: Client, people: People, question: str, via: str
) -> None:
    """Of two concurrent questions under one key the second is refused, and the first gets its answer."""
    options = {"via": via, "idempotency_key": question}
    handle = await start(client, AskUnderOneKey.run, options, f"{question} First", f"{question} Second")
    task = await people.by_key(question)
    async with asyncio.timeout(30):
        while not await handle.query(AskUnderOneKey.has_ended):
            await asyncio.sleep(0.1)
    await people.complete(task["id"], YES)
    assert await result(handle, 20) == [True, ["task"]]
