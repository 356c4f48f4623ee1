"""The worker or Temporal is down while the answer comes, in both modes."""

import asyncio
import sys
from pathlib import Path

import pytest
from devservers import HumansServer, Process, TemporalServer, started
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from tests.support.callers import TemporalCaller
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay
from tests.support.temporal import YES, result, start, unreachable, until_open
from tests.support.workflows import WORKFLOWS, Ask, AskUncaught

pytestmark = pytest.mark.edges

ROOT = Path(__file__).resolve().parents[3]


async def test_answer_waits_in_temporal_for_a_stopped_worker(
    people: People, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """An answer delivered while the worker is down is received when a worker starts."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])

    def worker() -> Worker:
        return Worker(client, task_queue=question, workflows=WORKFLOWS)

    async with worker():
        handle = await start(client, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
        (task,) = await people.find(question)
        await until_open(relay, task)
    await people.complete(task["id"], YES)
    await relay.wait_for(task["id"], "delivered")
    async with worker():
        assert await result(handle) is True


async def test_answer_is_acted_on_once_after_a_worker_is_killed(
    client: Client,
    people: People,
    relay: RunningRelay,
    temporal: TemporalServer,
    tmp_path: Path,
    question: str,
    via: str,
) -> None:
    """After SIGKILL of the waiting worker another worker continues with the answer, and acts once."""
    acts = tmp_path / "acts.txt"
    worker = worker_process(temporal, relay, tmp_path, question, acts)
    worker.start()
    handle = await start(client, Ask.run, {"task": question, "via": via}, task_queue=question)
    (task,) = await people.find(question)
    await until_open(relay, task)
    worker.kill()
    await people.complete(task["id"], YES)
    await relay.wait_for(task["id"], "delivered")
    other = worker_process(temporal, relay, tmp_path, question, acts)
    other.start()
    try:
        assert (await result(handle))["approved"] is True
    finally:
        other.stop()
    assert acts.read_text() == f"{handle.id}\n"


def worker_process(temporal: TemporalServer, relay: RunningRelay, folder: Path, queue: str, acts: Path) -> Process:
    settings = relay.settings
    (secret,) = settings.relay_secret
    return Process(
        [sys.executable, "-m", "tests.support.worker", temporal.address, queue, str(acts)],
        folder,
        {
            "AWAITHUMANS_URL": settings.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": settings.token(),
            "AWAITHUMANS_RELAY_URL": relay.url,
            "AWAITHUMANS_RELAY_SECRET": secret.get_secret_value(),
            "PYTHONPATH": str(ROOT),
        },
        log="worker.log",
    )


async def test_answer_arrives_after_temporal_is_restarted(
    people: People, humans: HumansServer, tmp_path: Path, question: str, via: str
) -> None:
    """The answer arrives although Temporal was down when the person gave it."""
    server = TemporalServer(tmp_path)
    caller = TemporalCaller(server.address, via)
    async with started(server), running_relay([caller.engine], humans, tmp_path) as relay, caller.ready(relay.settings):
        asked = await caller.ask(question)
        (task,) = await people.find(question)
        await until_open(relay, task)
        server.process.kill()
        await people.complete(task["id"], YES)
        await relay.wait_for(task["id"], "answered")
        await server.start()
        assert (await asyncio.wait_for(asked.result(), 60))["approved"] is True
        assert caller.acts[asked.name] == 1


async def test_activity_finds_the_answer_of_a_lost_callback(
    people: People, humans: HumansServer, temporal: TemporalServer, tmp_path: Path, question: str
) -> None:
    """In activity mode the worker checks the task itself, so the answer arrives even if the relay is down for good."""
    caller = TemporalCaller(temporal.address, "activity")
    async with running_relay([TemporalEngine(unreachable)], humans, tmp_path) as relay:
        settings = relay.settings
        client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])
        async with Worker(client, task_queue=question, workflows=WORKFLOWS):
            handle = await start(
                client, AskUncaught.run, {"task": question, "via": caller.via, "recheck": 3}, task_queue=question
            )
            (task,) = await people.find(question)
            await people.complete(task["id"], YES)
            assert await result(handle) is True
            attempts = [
                event
                for event in (await handle.fetch_history()).events
                if event.HasField("activity_task_started_event_attributes")
            ]
            assert attempts[-1].activity_task_started_event_attributes.attempt == 2
