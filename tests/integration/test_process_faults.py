"""Killed processes and stopped servers: the answer arrives once in every case."""

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, RelayServer, TemporalServer, started
from examples import langgraph_refund

from awaithumans_core import HumanTask, TaskClient, settle
from awaithumans_relay.store import Store
from tests.support.callers import TemporalCaller
from tests.support.people import People
from tests.support.relay import settings_for
from tests.support.workflows import Decision

pytestmark = pytest.mark.edges

ROOT = Path(__file__).resolve().parents[2]
OUTAGE_SECONDS = 10


class Processes:
    """One process of every kind, which a test may stop."""

    def __init__(self, folder: Path) -> None:
        secret = secrets.token_urlsafe(32)
        self.humans = HumansServer(folder / "humans")
        self.temporal = TemporalServer(folder / "temporal")
        self.temporal.process.folder.mkdir()
        self.checkpoints = str(folder / "checkpoints.db")
        self.relay = RelayServer(
            folder / "relay",
            self.humans,
            ["--temporal", self.temporal.address, "--graph", "refunds=examples.langgraph_refund:refunds"],
            secret=secret,
            env={"CHECKPOINTS": self.checkpoints, "PYTHONPATH": str(ROOT)},
        )
        self.settings = settings_for(self.humans, self.relay.url, secret)
        self.asker = TemporalCaller(self.temporal.address)
        (folder / "relay").mkdir()
        self.waits = Store(f"sqlite:///{folder / 'relay' / 'awaithumans-relay.db'}")

    async def until(self, task_id: str, state: str) -> None:
        async with asyncio.timeout(60):
            while [wait.state for wait in await self.waits.queries.find(task_id)] != [state]:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(400)
async def test_answer_acknowledged_by_a_killed_relay_wakes_once(tmp_path: Path) -> None:
    """The callback is stored while Temporal is down, the relay is killed, and the workflow is woken once."""
    processes = Processes(tmp_path)
    async with (
        started(processes.humans, processes.temporal, processes.relay),
        processes.asker.ready(processes.settings),
    ):
        people = People(processes.humans)
        asked = await processes.asker.ask("killed?")
        (task,) = await people.find("killed?")
        await processes.until(task["id"], "open")
        processes.temporal.stop()
        await people.complete(task["id"], {"approved": True})
        await processes.until(task["id"], "answered")
        processes.relay.kill()
        assert [wait.state for wait in await processes.waits.queries.find(task["id"])] == ["answered"]
        await processes.temporal.start()
        await processes.relay.start()
        assert (await asyncio.wait_for(asked.result(), 60))["approved"] is True
        await processes.until(task["id"], "delivered")
        assert processes.asker.acts[asked.name] == 1
        await people.aclose()
        await processes.waits.stop()


@pytest.mark.timeout(400)
async def test_callers_survive_an_outage_of_both_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The awaithumans server and Temporal are down while three callers wait, and none of them gives up."""
    processes = Processes(tmp_path)
    async with (
        started(processes.humans, processes.temporal, processes.relay),
        processes.asker.ready(processes.settings),
    ):
        people = People(processes.humans)
        asked = await processes.asker.ask("workflow?")
        thread = await _ask_in_graph(processes, monkeypatch)
        script = asyncio.create_task(_ask_in_script(processes))
        tasks = [
            (await people.find(question))[0] for question in ("workflow?", "Approve $7 refund for outage?", "script?")
        ]
        for task in tasks[:2]:
            await processes.until(task["id"], "open")

        processes.humans.stop()
        processes.temporal.stop()
        await asyncio.sleep(OUTAGE_SECONDS)
        assert not script.done()
        await asyncio.gather(processes.humans.start(), processes.temporal.start())

        for task in tasks:
            await people.complete(task["id"], {"approved": True})
        assert (await asyncio.wait_for(script, 60)).approved is True
        assert (await asyncio.wait_for(asked.result(), 60))["approved"] is True
        assert await asyncio.wait_for(thread, 60) == "paid"
        assert processes.asker.acts[asked.name] == 1
        await people.aclose()
        await processes.waits.stop()


async def _ask_in_script(processes: Processes) -> Decision:
    async with TaskClient(settings=processes.settings) as client:
        return settle(await client.ask(HumanTask(task="script?", response_schema=Decision)), Decision)


async def _ask_in_graph(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[str]":
    """Start a thread that the relay's process resumes; return a task that ends with its result."""
    for name in ("url", "relay_url"):
        monkeypatch.setenv(f"AWAITHUMANS_{name.upper()}", getattr(processes.settings, name))
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", processes.humans.token)
    monkeypatch.setenv("AWAITHUMANS_RELAY_SECRET", processes.settings.relay_secret[0].get_secret_value())
    assert os.environ["AWAITHUMANS_RELAY_URL"] == processes.relay.url
    langgraph_refund.CHECKPOINTS = processes.checkpoints
    config: Any = {"configurable": {"thread_id": "outage"}}
    async with langgraph_refund.refunds() as graph:
        await graph.ainvoke({"order": "outage", "amount": 7.0}, config)

    async def result() -> str:
        async with langgraph_refund.refunds() as graph:
            while (await graph.aget_state(config)).tasks:
                await asyncio.sleep(0.2)
            return str((await graph.aget_state(config)).values["result"])

    return asyncio.create_task(result())
