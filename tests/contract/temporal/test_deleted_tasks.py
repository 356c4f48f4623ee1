"""A task deleted on the server while its workflow waits is never created again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer, free_port
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_core import Outcome, Settings
from tests.contract.temporal.test_outages import worker_process
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay, settings_for
from tests.support.temporal import next_run, result, start, until_waiting
from tests.support.workflows import WORKFLOWS, Ask, AskAcrossRuns, AskUncaught

pytestmark = pytest.mark.edges


async def until_attempt(handle: WorkflowHandle[Any, Any], number: int, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            pending = (await handle.describe()).raw_description.pending_activities
            if any(activity.attempt >= number for activity in pending):
                return
            await asyncio.sleep(0.1)


async def test_attempt_of_another_worker_does_not_ask_again(
    people: People, humans: HumansServer, temporal: TemporalServer, tmp_path: Path, question: str
) -> None:
    """In activity mode, another worker waits for the relay after the task is deleted and the first is killed."""
    async with running_relay([TemporalEngine(lambda: Client.connect(temporal.address))], humans, tmp_path) as relay:
        acts = tmp_path / "acts.txt"
        worker = worker_process(temporal, relay, tmp_path, question, acts)
        worker.start()
        client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
        options = {"task": question, "via": "activity", "recheck": 2}
        handle = await start(client, Ask.run, options, task_queue=question)
        (task,) = await people.find(question)
        await relay.wait_for(task["id"], "open")
        worker.kill()
        await people.delete(task["id"])
        other = worker_process(temporal, relay, tmp_path, question, acts)
        other.start()
        try:
            await until_attempt(handle, 3)
            await asyncio.sleep(1)
            assert await people.find(question, count=0) == []
            await relay.confirm_deletion(task["id"])
            assert (await result(handle))["error"] == "TaskNotFoundError"
        finally:
            other.stop()
        assert await people.find(question, count=0) == []
        await relay.wait_for(task["id"], "delivered")


async def test_attempt_after_a_failed_registration_does_not_ask_again(
    people: People, humans: HumansServer, temporal: TemporalServer, tmp_path: Path, question: str
) -> None:
    """If the task is deleted while the relay is down, the next attempt leaves the wait to the relay."""
    port = free_port()
    settings = settings_for(humans, f"http://127.0.0.1:{port}")
    engine = TemporalEngine(lambda: Client.connect(temporal.address))
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])

    async def asked_and_deleted(via: str) -> tuple[WorkflowHandle[Any, Any], str]:
        named = {"task": f"{question} {via}", "via": via}
        handle = await start(client, AskUncaught.run, named, task_queue=question)
        (task,) = await people.find(named["task"])
        await people.delete(task["id"])
        await until_attempt(handle, 2)
        return handle, task["id"]

    async with Worker(client, task_queue=question, workflows=WORKFLOWS):
        asked = await asyncio.gather(asked_and_deleted("signal"), asked_and_deleted("activity"))
        async with running_relay([engine], humans, tmp_path, settings=settings, port=port) as relay:
            for _, task_id in asked:
                await relay.wait_for(task_id, "open")
            async with asyncio.timeout(60):
                while (await relay.store.missing_tasks.listed(9))[0] < 2:
                    await asyncio.sleep(0.1)
        for via in ("signal", "activity"):
            assert await people.find(f"{question} {via}", count=0) == []
        for handle, _ in asked:
            await handle.terminate()


async def test_task_of_a_worker_stopped_before_registering_is_not_created_again(
    people: People, humans: HumansServer, temporal: TemporalServer, tmp_path: Path, question: str, via: str
) -> None:
    """A task that is deleted while the relay is down and the worker is replaced is not created again."""
    port = free_port()
    settings = settings_for(humans, f"http://127.0.0.1:{port}")
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])

    def worker() -> Worker:
        return Worker(client, task_queue=question, workflows=WORKFLOWS)

    async with worker():
        handle = await start(client, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
        (task,) = await people.find(question)
        await asyncio.sleep(0.5)
    await people.delete(task["id"])
    engine = TemporalEngine(lambda: Client.connect(temporal.address))
    async with running_relay([engine], humans, tmp_path, settings=settings, port=port) as relay, worker():
        await relay.wait_for(task["id"], "open")
        assert await people.find(question, count=0) == []
        await handle.terminate()


async def test_attempt_that_the_relay_refuses_does_not_ask_again(
    relay: RunningRelay, people: People, temporal: TemporalServer, question: str
) -> None:
    """In activity mode, a deleted task is not created again by a worker whose relay secret is wrong."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    async with Worker(client, task_queue=question, workflows=WORKFLOWS):
        options = {"task": question, "via": "activity", "recheck": 3}
        handle = await start(client, AskUncaught.run, options, task_queue=question)
        (task,) = await people.find(question)
        await relay.wait_for(task["id"], "open")
    await people.delete(task["id"])
    stranger = HumanTasksPlugin(Settings.load(**relay.settings.model_dump() | {"relay_secret": "x" * 43}))
    other = await Client.connect(temporal.address, plugins=[stranger])
    async with Worker(other, task_queue=question, workflows=WORKFLOWS), asyncio.timeout(60):
        failed = ""
        while "AWAITHUMANS_RELAY_SECRET" not in failed:
            await asyncio.sleep(0.1)
            (pending,) = (await handle.describe()).raw_description.pending_activities
            failed = pending.last_failure.message
    assert await people.find(question, count=0) == []
    await handle.terminate()


async def test_run_after_continue_as_new_does_not_ask_again(
    people: People, humans: HumansServer, temporal: TemporalServer, tmp_path: Path, question: str, via: str
) -> None:
    """If the task is deleted and the workflow continues as new, the next run receives that end and creates no task."""
    async with running_relay([TemporalEngine(lambda: Client.connect(temporal.address))], humans, tmp_path) as relay:
        client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
        async with Worker(client, task_queue=question, workflows=WORKFLOWS):
            handle = await start(client, AskAcrossRuns.run, {"task": question, "via": via}, task_queue=question)
            (task,) = await people.find(question)
            await relay.wait_for(task["id"], "open")
            await people.delete(task["id"])
            await next_run(handle, AskAcrossRuns.go_on)
            await until_waiting(handle)
            await asyncio.sleep(1)
            assert await people.find(question, count=0) == []
            await relay.confirm_deletion(task["id"])
            with pytest.raises(WorkflowFailureError) as failed:
                await result(handle)
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "TaskNotFoundError"
    assert await people.find(question, count=0) == []


async def test_unknown_status_is_not_an_answer(
    relay: RunningRelay, people: People, client: Client, temporal: TemporalServer, question: str, via: str
) -> None:
    """On a status of a later release the workflow neither continues nor fails; it keeps waiting."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    (wait,) = await relay.wait_for(task["id"], "open")
    later = Outcome(task_id=task["id"], status="a_later_end", idempotency_key=wait.route.idempotency_key)
    await TemporalEngine(client).deliver(wait.route, later)
    with pytest.raises(TimeoutError):
        await result(handle, 3)
    assert (await handle.describe()).status is not None
    await handle.terminate()
