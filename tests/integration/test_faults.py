"""Faults, with real processes: SIGKILL and servers that are away. The answer arrives once in every case."""

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


class House:
    """One of everything, in processes of their own that a test may stop."""

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
            while [wait.state for wait in await self.waits.find(task_id)] != [state]:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(400)
async def test_relay_killed_between_acknowledgement_and_wake(tmp_path: Path) -> None:
    """Temporal is away when the callback comes, which is stored. The relay is killed, both come back: one wake."""
    house = House(tmp_path)
    async with started(house.humans, house.temporal, house.relay), house.asker.ready(house.settings):
        people = People(house.humans)
        asked = await house.asker.ask("killed?")
        (task,) = await people.find("killed?")
        await house.until(task["id"], "open")
        house.temporal.stop()
        await people.complete(task["id"], {"approved": True})
        await house.until(task["id"], "answered")
        house.relay.kill()
        assert [wait.state for wait in await house.waits.find(task["id"])] == ["answered"]
        await house.temporal.start()
        await house.relay.start()
        assert (await asyncio.wait_for(asked.result(), 60))["approved"] is True
        await house.until(task["id"], "delivered")
        assert house.asker.acts[asked.name] == 1
        await people.aclose()
        await house.waits.stop()


@pytest.mark.timeout(400)
async def test_a_while_without_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The awaithumans server and Temporal are both away while all three callers wait: none gives up."""
    house = House(tmp_path)
    async with started(house.humans, house.temporal, house.relay), house.asker.ready(house.settings):
        people = People(house.humans)
        asked = await house.asker.ask("workflow?")
        thread = await _ask_in_graph(house, monkeypatch)
        script = asyncio.create_task(_ask_in_script(house))
        tasks = [
            (await people.find(question))[0] for question in ("workflow?", "Approve $7 refund for outage?", "script?")
        ]
        for task in tasks[:2]:
            await house.until(task["id"], "open")

        house.humans.stop()
        house.temporal.stop()
        await asyncio.sleep(OUTAGE_SECONDS)
        assert not script.done()
        await asyncio.gather(house.humans.start(), house.temporal.start())

        for task in tasks:
            await people.complete(task["id"], {"approved": True})
        assert (await asyncio.wait_for(script, 60)).approved is True
        assert (await asyncio.wait_for(asked.result(), 60))["approved"] is True
        assert await asyncio.wait_for(thread, 60) == "paid"
        assert house.asker.acts[asked.name] == 1
        await people.aclose()
        await house.waits.stop()


async def _ask_in_script(house: House) -> Decision:
    async with TaskClient(settings=house.settings) as client:
        return settle(await client.ask(HumanTask(task="script?", response_schema=Decision)), Decision)


async def _ask_in_graph(house: House, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[str]":
    """Start a thread here; the relay's process resumes it. Returns a task that ends with the thread's result."""
    for name in ("url", "relay_url"):
        monkeypatch.setenv(f"AWAITHUMANS_{name.upper()}", getattr(house.settings, name))
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", house.humans.token)
    monkeypatch.setenv("AWAITHUMANS_RELAY_SECRET", house.settings.relay_secret[0].get_secret_value())
    assert os.environ["AWAITHUMANS_RELAY_URL"] == house.relay.url
    langgraph_refund.CHECKPOINTS = house.checkpoints
    config: Any = {"configurable": {"thread_id": "outage"}}
    async with langgraph_refund.refunds() as graph:
        await graph.ainvoke({"order": "outage", "amount": 7.0}, config)

    async def result() -> str:
        async with langgraph_refund.refunds() as graph:
            while (await graph.aget_state(config)).tasks:
                await asyncio.sleep(0.2)
            return str((await graph.aget_state(config)).values["result"])

    return asyncio.create_task(result())
