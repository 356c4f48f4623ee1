"""A deploy changes a question while it is open; the answer still arrives, in both modes."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from devservers import TemporalServer
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import NO, YES, failures, next_run, result, start, until_open, until_waiting
from tests.support.workflows import RELEASES, AskByRelease

pytestmark = pytest.mark.edges  # the quick suite has the replays of `tests/contract/test_histories.py`

AT_ONCE = timedelta(seconds=0.5)
"""Shortened, so that Temporal does not wait for a stopped worker."""


@pytest.fixture
async def deployer(relay: RunningRelay, temporal: TemporalServer) -> Client:
    return await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])


@asynccontextmanager
async def deployed(client: Client, queue: str, release: str, cached: int = 0) -> AsyncGenerator[None]:
    """Run workers with this release of the workflow's code."""
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[RELEASES[release]],
        max_cached_workflows=cached,
        sticky_queue_schedule_to_start_timeout=AT_ONCE,
    )
    async with worker:
        yield


async def waiting_workflow(
    client: Client, relay: RunningRelay, people: People, question: str, via: str, **options: Any
) -> tuple[WorkflowHandle[Any, Any], Any]:
    """Start a workflow of the first release; return once its question is open and its worker stopped."""
    async with deployed(client, question, "first"):
        handle = await start(client, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        (task,) = await people.find(question)
        await until_open(relay, task)
        await until_waiting(handle)
        await asyncio.sleep(0.3)
    return handle, task


@pytest.mark.parametrize("release", ["reworded", "a field more", "another order of a set"])
async def test_question_reworded_while_waiting_gets_its_answer(
    deployer: Client,
    relay: RunningRelay,
    people: People,
    question: str,
    via: str,
    release: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Changed text, a new field in the payload or a list from a set: the answer is taken, the change reported."""
    handle, task = await waiting_workflow(deployer, relay, people, question, via)
    with caplog.at_level(logging.WARNING, logger="temporalio.workflow"):
        async with deployed(deployer, question, release):
            if via == "signal":
                (pending,) = await until_waiting(handle)
                assert (pending["task_id"], pending["reworded"]) == (task["id"], True)
            await people.complete(task["id"], YES)
            assert await result(handle) == {"approved": True, "reworded": True}
    assert [each["id"] for each in await people.find(question)] == [task["id"]]
    assert f"task {task['id']}: the code now asks in other words" in caplog.text
    assert [failure for failure in await failures(handle) if failure] == []


async def test_unchanged_question_reports_no_change(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A deploy that leaves the question unchanged reports nothing."""
    handle, task = await waiting_workflow(deployer, relay, people, question, via)
    async with deployed(deployer, question, "first", cached=10):
        await people.complete(task["id"], NO)
        assert await result(handle) == {"approved": False, "reworded": None}


async def test_strict_question_refuses_the_answer_to_other_words(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """With `may_reword=False` the workflow gets `QuestionChangedError`, in each replay as well."""
    handle, task = await waiting_workflow(deployer, relay, people, question, via, may_reword=False, then_waits=1)
    async with deployed(deployer, question, "reworded"):
        await people.complete(task["id"], YES)
        assert await result(handle) == {"error": "QuestionChangedError", "differs": ["idempotency_key"]}
    assert (await people.task(task["id"]))["response"] == YES


async def test_strict_question_keeps_an_answer_taken_before_the_deploy(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A workflow that took its answer before the deploy replays under the new code and is not stopped by it."""
    async with deployed(deployer, question, "first"):
        options = {"may_reword": False, "then_waits": 3}
        handle = await start(deployer, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        await people.answer(question, YES)
        async with asyncio.timeout(30):
            while not await handle.query(AskByRelease.is_answered):
                await asyncio.sleep(0.05)
    async with deployed(deployer, question, "reworded"):
        assert (await result(handle))["approved"] is True
    assert [failure for failure in await failures(handle) if failure] == []


async def test_cancelling_a_reworded_question_cancels_its_task(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """Cancelling the workflow after the deploy cancels the task created before it."""
    handle, task = await waiting_workflow(deployer, relay, people, question, via)
    async with deployed(deployer, question, "reworded"):
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"


async def two_questions_waiting(
    client: Client, relay: RunningRelay, people: People, question: str, via: str, **how: Any
) -> tuple[WorkflowHandle[Any, Any], Any, Any]:
    """Start a workflow of the first release; return once both questions are open and its worker stopped."""
    async with deployed(client, question, "first"):
        options = {"both": True} | how
        handle = await start(client, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        left, right = [(await people.find(f"{question} {side}"))[0] for side in ("left", "right")]
        await until_open(relay, left)
        await until_open(relay, right)
        await asyncio.sleep(0.3)
    return handle, left, right


async def test_questions_that_swap_places_take_no_foreign_answer(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """Two concurrent questions that change places receive neither each other's answer."""
    handle, left, right = await two_questions_waiting(deployer, relay, people, question, via)
    async with deployed(deployer, question, "reworded"):
        await people.complete(left["id"], YES)
        await people.complete(right["id"], NO)
        if via == "signal":
            assert await result(handle) == {"left": True, "right": False}
            return
        async with asyncio.timeout(30):
            while "another order" not in str(await failures(handle)):
                await asyncio.sleep(0.1)
    async with deployed(deployer, question, "first"):  # both answers are still on the server
        assert await result(handle) == {"left": True, "right": False}


async def test_questions_that_swap_places_keep_their_tasks_in_the_next_run(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """If two questions change places and the run continues as new, each keeps its own task."""
    handle, left, right = await two_questions_waiting(deployer, relay, people, question, via)
    async with deployed(deployer, question, "reworded"):
        await next_run(handle, AskByRelease.go_on)
        await people.complete(left["id"], YES)
        await people.complete(right["id"], NO)
        assert await result(deployer.get_workflow_handle(handle.id)) == {"left": True, "right": False}
    assert [len(await people.find(f"{question} {side}")) for side in ("left", "right")] == [1, 1]


async def test_cancelling_one_swapped_question_cancels_only_its_task(
    deployer: Client, relay: RunningRelay, people: People, question: str
) -> None:
    """Only the task of the cancelled question is cancelled; the other person can still answer."""
    handle, left, right = await two_questions_waiting(
        deployer, relay, people, question, "signal", **{"gives up": "right"}
    )
    async with deployed(deployer, question, "reworded"):
        await handle.signal(AskByRelease.go_on)
        async with asyncio.timeout(30):
            while (await people.task(right["id"]))["status"] != "cancelled":
                await asyncio.sleep(0.1)
        await people.complete(left["id"], YES)
        assert await result(handle) == {"left": True}


async def test_question_reworded_after_continue_as_new_gets_its_answer(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A run that inherits its question takes the answer although a deploy reworded it."""
    async with deployed(deployer, question, "first"):
        options = {"across": True}
        handle = await start(deployer, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        (task,) = await people.find(question)
        await until_open(relay, task)
        await next_run(handle, AskByRelease.go_on)
        await until_waiting(deployer.get_workflow_handle(handle.id))
        await asyncio.sleep(1)
    current = deployer.get_workflow_handle(handle.id)
    async with deployed(deployer, question, "reworded"):
        await people.complete(task["id"], YES)
        assert await result(current) == {"approved": True, "reworded": True}
    assert len(await people.find(question)) == 1
