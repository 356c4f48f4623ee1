"""A relay takes a signed callback and delivers the answer, on each database; its command line then lists the wait."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import uvicorn

from awaithumans_core import Outcome, Route, Settings
from awaithumans_core.signing import SIGNATURE_HEADER, derive_webhook_key, sign
from awaithumans_relay import create_app

DATABASES = ["sqlite:///relay.db", *filter(None, [os.environ.get("COMPAT_POSTGRES")])]


class Notebook:
    """An engine that keeps what it is given."""

    name = "notebook"

    def __init__(self) -> None:
        self.delivered: asyncio.Future[Outcome] = asyncio.Future()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        self.delivered.set_result(outcome)


async def call_back(database: str, listening: socket.socket) -> str:
    """Send a callback to a relay on this socket; return the id of the task it was about."""
    settings, engine, task_id = Settings.load(), Notebook(), uuid.uuid4().hex
    app = create_app([engine], settings=settings, database=database)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    body = {"task_id": task_id, "idempotency_key": task_id, "status": "completed", "response": {"approved": True}}
    content = json.dumps(body).encode()
    headers = {SIGNATURE_HEADER: sign(content, derive_webhook_key(os.environ["AWAITHUMANS_PAYLOAD_KEY"]))}
    token = settings.signer().issue(Route("notebook", {"page": "1"}, task_id))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as http:
        assert (await http.post(f"/callbacks/{token}", content=content, headers=headers)).status_code == 200
        assert (await asyncio.wait_for(engine.delivered, 30)).response == {"approved": True}
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/metrics")).status_code == 200
    server.should_exit = True
    await serving
    return task_id


def relay_command(*arguments: str) -> str:
    """Output of `awaithumans-relay`."""
    program = Path(sys.executable).with_name("awaithumans-relay")
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    for database in DATABASES:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            task_id = asyncio.run(call_back(database, listening))
        assert task_id in relay_command("waits", "--database", database, "--json")
    assert "--langgraph-server" in relay_command("serve", "--help")
