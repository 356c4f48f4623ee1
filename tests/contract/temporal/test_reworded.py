"""A deploy changes a question while it is open: the answer to it arrives all the same, in both modes."""

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

pytestmark = pytest.mark.edges  # `tests/contract/test_histories.py` replays other words in the quick suite

AT_ONCE = timedelta(seconds=0.5)
"""A worker that was stopped is not waited for."""


@pytest.fixture
async def deployer(relay: RunningRelay, temporal: TemporalServer) -> Client:
    return await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])


@asynccontextmanager
async def deployed(client: Client, queue: str, release: str, cached: int = 0) -> AsyncGenerator[None]:
    """Workers that run this release of the workflow's code."""
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[RELEASES[release]],
        max_cached_workflows=cached,
        sticky_queue_schedule_to_start_timeout=AT_ONCE,
    )
    async with worker:
        yield


async def asked(
    client: Client, relay: RunningRelay, people: People, question: str, via: str, **options: Any
) -> tuple[WorkflowHandle[Any, Any], Any]:
    """A workflow of the first release, once its question is open and its worker stopped."""
    async with deployed(client, question, "first"):
        handle = await start(client, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        (task,) = await people.find(question)
        await until_open(relay, task)
        await until_waiting(handle)
        await asyncio.sleep(0.3)
    return handle, task


@pytest.mark.parametrize("release", ["reworded", "a field more", "another order of a set"])
async def test_reworded_while_waiting(
    deployer: Client,
    relay: RunningRelay,
    people: People,
    question: str,
    via: str,
    release: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Other words, a payload model with one more field, a list made of a set: the answer is taken and reported."""
    handle, task = await asked(deployer, relay, people, question, via)
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


async def test_asked_as_before(deployer: Client, relay: RunningRelay, people: People, question: str, via: str) -> None:
    """A deploy that changes nothing of the question: nothing is reported."""
    handle, task = await asked(deployer, relay, people, question, via)
    async with deployed(deployer, question, "first", cached=10):
        await people.complete(task["id"], NO)
        assert await result(handle) == {"approved": False, "reworded": None}


async def test_strict_refuses_an_answer_to_other_words(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """With `may_reword=False` the workflow gets `QuestionChangedError`, in each replay as well."""
    handle, task = await asked(deployer, relay, people, question, via, may_reword=False, then_waits=1)
    async with deployed(deployer, question, "reworded"):
        await people.complete(task["id"], YES)
        assert await result(handle) == {"error": "QuestionChangedError", "differs": ["idempotency_key"]}
    assert (await people.task(task["id"]))["response"] == YES


async def test_strict_keeps_an_answer_that_was_taken_before_the_deploy(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A workflow that went on with its answer replays under the new code, and is not stopped by it."""
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


async def test_reworded_and_given_up(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A workflow that is cancelled after the deploy frees the person who was asked before it."""
    handle, task = await asked(deployer, relay, people, question, via)
    async with deployed(deployer, question, "reworded"):
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"


async def both_asked(
    client: Client, relay: RunningRelay, people: People, question: str, via: str, **how: Any
) -> tuple[WorkflowHandle[Any, Any], Any, Any]:
    """A workflow of the first release, its two questions open and its worker stopped."""
    async with deployed(client, question, "first"):
        options = {"both": True} | how
        handle = await start(client, AskByRelease.run, {"task": question, "via": via}, options, task_queue=question)
        left, right = [(await people.find(f"{question} {side}"))[0] for side in ("left", "right")]
        await until_open(relay, left)
        await until_open(relay, right)
        await asyncio.sleep(0.3)
    return handle, left, right


async def test_questions_in_another_order(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """Two questions asked at once change places: neither gets the answer to the other."""
    handle, left, right = await both_asked(deployer, relay, people, question, via)
    async with deployed(deployer, question, "reworded"):
        await people.complete(left["id"], YES)
        await people.complete(right["id"], NO)
        if via == "signal":
            assert await result(handle) == {"left": True, "right": False}
            return
        async with asyncio.timeout(30):
            while "another order" not in str(await failures(handle)):
                await asyncio.sleep(0.1)
    async with deployed(deployer, question, "first"):  # nothing is lost
        assert await result(handle) == {"left": True, "right": False}


async def test_questions_in_another_order_are_handed_on(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """Two questions change places, and the run continues as new: each goes on with its own task."""
    handle, left, right = await both_asked(deployer, relay, people, question, via)
    async with deployed(deployer, question, "reworded"):
        await next_run(handle, AskByRelease.go_on)
        await people.complete(left["id"], YES)
        await people.complete(right["id"], NO)
        assert await result(deployer.get_workflow_handle(handle.id)) == {"left": True, "right": False}
    assert [len(await people.find(f"{question} {side}")) for side in ("left", "right")] == [1, 1]


async def test_one_of_two_questions_in_another_order_is_given_up(
    deployer: Client, relay: RunningRelay, people: People, question: str
) -> None:
    """The person of this question is freed. The other one still answers theirs."""
    handle, left, right = await both_asked(deployer, relay, people, question, "signal", **{"gives up": "right"})
    async with deployed(deployer, question, "reworded"):
        await handle.signal(AskByRelease.go_on)
        async with asyncio.timeout(30):
            while (await people.task(right["id"]))["status"] != "cancelled":
                await asyncio.sleep(0.1)
        await people.complete(left["id"], YES)
        assert await result(handle) == {"left": True}


async def test_reworded_after_it_was_handed_on(
    deployer: Client, relay: RunningRelay, people: People, question: str, via: str
) -> None:
    """A run inherits its question, and is deployed anew while it waits: it goes on with the question all the same."""
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
