"""What happens to the task of a call that is cancelled, in both modes."""

import asyncio
from typing import Any

import pytest
from devservers import TemporalServer, free_port
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_core import Settings
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import YES, result, start, until_open
from tests.support.workflows import WORKFLOWS, AskAndGiveUp

pytestmark = pytest.mark.edges

CHOICES: list[dict[str, Any]] = [
    {"on_cancel": "request"},
    {"on_cancel": "leave"},
    {"on_cancel": "wait", "cancel_within": 3},
]


async def test_timeout_is_kept_while_the_server_is_unreachable(
    temporal: TemporalServer, relay: RunningRelay, question: str, via: str
) -> None:
    """`asyncio.timeout(2)` ends after 2 s, or after 2 s plus the time limit for cancelling."""
    settings = Settings.load(**relay.settings.model_dump() | {"url": f"http://127.0.0.1:{free_port()}"})
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])

    async def seconds(choice: dict[str, Any]) -> float:
        options = {"task": question, "via": via, **choice}
        return float(await result(await start(client, AskAndGiveUp.run, options, "ends", task_queue=question), 100))

    async with Worker(client, task_queue=question, workflows=WORKFLOWS):
        request, leave, wait = await asyncio.gather(*map(seconds, CHOICES))
    assert request < 4
    assert leave < 4
    assert 5 <= wait < 20


async def test_request_mode_cancels_the_task_in_the_background(
    client: Client, people: People, question: str, via: str
) -> None:
    """With "request" the call does not wait for the cancellation, and the task is cancelled all the same."""
    options = {"task": question, "via": via, "on_cancel": "request"}
    handle = await start(client, AskAndGiveUp.run, options, "goes on")
    (task,) = await people.find(question)
    async with asyncio.timeout(30):
        while (await people.task(task["id"]))["status"] != "cancelled":
            await asyncio.sleep(0.1)
    await handle.terminate()


async def test_question_left_open_is_answered_at_the_next_call(
    client: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """With "leave" the task stays open, and the next call with the same key receives its answer."""
    options = {"task": question, "via": via, "on_cancel": "leave", "idempotency_key": f"key of {question}"}
    handle = await start(client, AskAndGiveUp.run, options, "asks again")
    (task,) = await people.find(question)
    await until_open(relay, task)
    await asyncio.sleep(3)
    assert (await people.task(task["id"]))["status"] == "created"
    await people.complete(task["id"], YES)
    assert await result(handle) is True
    assert len(await people.find(question)) == 1
