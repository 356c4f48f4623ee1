"""Who gets which answer, in both modes."""

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


async def test_each_gets_its_own_answer(client: Client, people: People, question: str, via: str) -> None:
    """Two people one after the other, then two at once: no answer is taken for another question's."""
    handle = await start(client, AskSeveral.run, question, via)
    for which, approved in [("first", False), ("second", True)]:
        await people.answer(f"{question}: {which}?", {"approved": approved})
    await people.answer(f"{question}: right?", YES)
    await people.answer(f"{question}: left?", NO)
    assert await result(handle) == [False, True, False, True]


async def test_a_child_workflow_asks(client: Client, people: People, question: str, via: str) -> None:
    """The child is the asker, and its parent gets what it returns."""
    handle = await start(client, AskInChild.run, {"task": question, "via": via})
    await people.answer(question, YES)
    assert (await result(handle))["approved"] is True


async def test_two_with_one_key(client: Client, people: People, question: str, via: str) -> None:
    """Two workflows that share a key share the question, and each gets its answer."""
    options = {"task": question, "via": via, "idempotency_key": f"shared {question}"}
    handles = [await start(client, AskUncaught.run, options) for _ in range(2)]
    for handle in handles:
        await until_waiting(handle)
    (task,) = await people.find(question)
    await asyncio.sleep(0.5)  # both have registered
    await people.complete(task["id"], YES)
    assert [await result(handle) for handle in handles] == [True, True]


async def test_a_quorum_in_a_workflow(client: Client, people: People, question: str, via: str) -> None:
    """Two say yes; the third is freed."""
    handle = await start(client, AskTwoOfThree.run, question, via)
    tasks = await people.find(question, count=3)
    for task in tasks[:2]:
        await people.complete(task["id"], YES, by=task["assign_to"]["email"])
    assert await result(handle) == [True, "yes", "yes"]
    assert (await people.task(tasks[2]["id"]))["status"] == "cancelled"


@pytest.mark.edges
async def test_one_person_is_no_quorum_in_a_workflow(client: Client, people: People, question: str, via: str) -> None:
    """The second answer of one person has no effect, now and on replay; a second person makes the quorum."""
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
async def test_a_bug_in_a_quorum_cancels_nobody(
    people: PeopleWithPromptChecks, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """The workflow is suspended as it stands; mended, it goes on with the votes it has, and others can still vote."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    quick = timedelta(seconds=1)  # a worker that has gone is not waited for
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


async def test_delivered_again_to_a_workflow_that_has_ended(
    client: Client, people: People, question: str, via: str
) -> None:
    """A relay that died before it wrote a delivery down makes it again: the workflow had it, and ended of it.

    An answer that it had not is told apart.
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


async def test_the_bare_activity(client: Client, people: People, question: str) -> None:
    """Called without `await_human`: completed from outside, looked for again when that was lost."""
    handle = await start(client, AskBarely.run, question)
    await people.answer(question, YES)
    assert await result(handle) == {"approved": True}
    assert (await people.find(question))[0]["idempotency_key"].startswith(f"temporal:default:{handle.id}:")


async def test_an_answer_for_another_run_completes_nothing_else(client: Client, people: People, question: str) -> None:
    """An activity with an id that Temporal made is answered in its own run only: "1" is something else in another."""
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


async def test_any_text_can_be_a_key(client: Client, people: People) -> None:
    """A caller's key is taken as it is, whatever stands in for the key of a question that has none."""
    handles = [await start(client, AskUnderAnyKey.run, "Any text?", via) for via in ("signal", "activity")]
    await people.complete((await people.by_key("unnamed"))["id"], YES)
    assert [await result(handle) for handle in handles] == [True, True]
    assert len(await people.find("Any text?")) == 1


async def test_the_bare_activity_as_a_local_activity_says_what_to_do(
    client: Client, people: People, question: str
) -> None:
    """Nothing can complete a local activity from outside: refused before anybody is asked."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskLocally.run, question, "awaithumans.await_human"))
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.non_retryable
    assert "execute_activity_method" in str(cause)
    assert await people.find(question, count=0) == []


async def test_other_activities_may_be_local(client: Client, people: People, question: str) -> None:
    """A task is created and cancelled by local activities as by any other."""
    opened = await result(await start(client, AskLocally.run, question, "awaithumans.open_wait"))
    (task,) = await people.find(question)
    assert opened["task_id"] == task["id"]
    closed = await result(await start(client, AskLocally.run, task["id"], "awaithumans.close_wait"))
    assert closed["task_id"] == task["id"]


@pytest.mark.edges
async def test_other_words_under_the_same_key_are_refused_alone(
    client: Client, people: People, question: str, via: str
) -> None:
    """Two questions at once under one key: the second is refused, and the first gets its answer."""
    options = {"via": via, "idempotency_key": question}
    handle = await start(client, AskUnderOneKey.run, options, f"{question} First", f"{question} Second")
    task = await people.by_key(question)
    async with asyncio.timeout(30):
        while not await handle.query(AskUnderOneKey.has_ended):
            await asyncio.sleep(0.1)
    await people.complete(task["id"], YES)
    assert await result(handle, 20) == [True, ["task"]]
