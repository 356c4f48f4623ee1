"""Two relay processes on one PostgreSQL share waits and checkpoints, and nothing else."""

import asyncio
import json
import random
import secrets
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from devservers import HumansServer, RelayServer, started
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from awaithumans_core import HumanTasks, Route
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay.store import Store
from tests.support import fan_out
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import settings_for

pytestmark = pytest.mark.edges

ROOT = Path(__file__).resolve().parents[2]
ITEMS = 20


@pytest.mark.timeout(400)
async def test_concurrent_callbacks_for_one_thread_reach_their_branches(
    humans: HumansServer, people: People, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks for 20 branches arrive at both relays at once, and each reaches its own branch."""
    secret, waits, checkpoints = secrets.token_urlsafe(32), postgres.database(), postgres.database()
    acts = tmp_path / "acts"
    env = {"CHECKPOINTS": checkpoints, "ACTS": str(acts), "PYTHONPATH": str(ROOT)}
    arguments = ["--graph", "fan-out=tests.support.fan_out:fan_out", "--database", waits]
    relays = [RelayServer(tmp_path / name, humans, arguments, secret=secret, env=env) for name in ("one", "two")]
    settings = settings_for(humans, relays[0].url, secret)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    async with AsyncPostgresSaver.from_conn_string(checkpoints) as saver:
        await saver.setup()
    name = uuid.uuid4().hex[:8]
    config: Any = {"configurable": {"thread_id": name}}
    store = Store(waits)
    async with started(*relays), fan_out.fan_out(HumanTasks(settings)) as graph, httpx.AsyncClient() as http:
        paused = await graph.ainvoke({"name": name, "items": list(range(ITEMS)), "answers": []}, config)
        assert len(paused["__interrupt__"]) == ITEMS
        tasks = [shown.value for shown in paused["__interrupt__"]]
        random.shuffle(tasks)

        async def call_back(number: int, task: dict[str, Any]) -> None:
            approved = int(task["task"].split()[-1].rstrip("?")) % 2 == 0
            await people.complete(task["task_id"], {"approved": approved})
            key = task["idempotency_key"]
            body = {"task_id": task["task_id"], "idempotency_key": key, "status": "completed"}
            content = json.dumps(body | {"response": {"approved": approved}}).encode()
            token = settings.signer().issue(Route("langgraph", {"thread_id": name}, key))
            signature = sign(content, derive_webhook_key(humans.payload_key))
            url = f"{relays[number % 2].url}/callbacks/{token}"
            sent = await http.post(url, content=content, headers={"X-Awaithumans-Signature": signature})
            assert sent.status_code == 200

        await asyncio.gather(*(call_back(number, task) for number, task in enumerate(tasks)))
        async with asyncio.timeout(60):
            while await store.queries.counts() != {"delivered": ITEMS}:
                await asyncio.sleep(0.1)
        state = await graph.aget_state(config)
    await store.stop()
    assert state.next == ()
    assert sorted(map(tuple, state.values["answers"])) == [(item, item % 2 == 0) for item in range(ITEMS)]
    assert sorted(acts.read_text().splitlines()) == sorted([f"{i} {i % 2 == 0}" for i in range(ITEMS)] + ["act"])
