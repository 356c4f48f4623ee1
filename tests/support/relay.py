"""A relay in the test's own event loop, which listens on a real port and whose store is accessible."""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from devservers import Process, free_port
from fastapi import FastAPI
from sqlalchemy import update

from awaithumans_core import Engine, HumanTasks, Route, Settings
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay import create_app
from awaithumans_relay.store import Store, Wait
from awaithumans_relay.store.table.schema import waits
from tests.support.servers import TaskServer


@dataclass
class RunningRelay:
    """Address and settings of a running relay, and access to its table."""

    url: str
    settings: Settings
    store: Store

    def human_tasks(self) -> HumanTasks:
        return HumanTasks(self.settings)

    async def check_now(self, task_id: str, seconds: float = 60.0, *, after: float = 0.0) -> None:
        """Make the sweep check a task now instead of on schedule, because the server's own callback may take 5 s.

        `after`: seconds until the check, so that it does not come first.
        """
        async with asyncio.timeout(seconds):
            while not (waits := await self.store.queries.find(task_id)):
                await asyncio.sleep(0.05)
        await self.store.checks.postpone(waits, after)

    async def until_checked(self, task_id: str, seconds: float = 60.0) -> None:
        """Wait until the sweep has checked the waits of this task and put them back on their schedule."""
        async with asyncio.timeout(seconds):
            while any(wait.next_check_at <= time.time() for wait in await self.store.queries.find(task_id)):
                await asyncio.sleep(0.05)

    async def wait_for(self, task_id: str, state: str, seconds: float = 60.0) -> list[Wait]:
        """Return the waits of a task, once all of them are in this state."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.store.queries.find(task_id)
                if found and all(wait.state == state for wait in found):
                    return found
                await asyncio.sleep(0.05)

    async def confirm_deletion(self, task_id: str, seconds: float = 60.0) -> None:
        """Have the relay read a deleted task for the third time, five minutes after the first.

        It reads the task once by itself; the minutes in between are taken off the time that its table keeps.
        """
        await self.check_now(task_id)
        async with asyncio.timeout(seconds):
            while not any(wait.missing_since for wait in await self.store.queries.find(task_id)):
                await asyncio.sleep(0.05)
        read_before = {"missing_since": waits.c.missing_since - 301, "missing_count": 2, "next_check_at": 0.0}
        earlier = update(waits).where(waits.c.task_id == task_id).values(**read_before)
        await self.store.database.write(lambda db: db.execute(earlier).rowcount)


class Server:
    """Speaks to the relay as the awaithumans server and as a caller would."""

    def __init__(self, relay: RunningRelay, humans: TaskServer) -> None:
        self.http = httpx.AsyncClient(base_url=relay.url)
        self.signer = relay.settings.signer()
        self.key = derive_webhook_key(humans.payload_key)

    async def call_back(
        self, route: Route, task_id: str = "task-1", *, slash: str = "", **fields: Any
    ) -> httpx.Response:
        body = {
            "task_id": task_id,
            "idempotency_key": route.idempotency_key,
            "status": "completed",
            "response": {"approved": True},
            "completed_at": "2026-01-01T10:00:00",
            **fields,
        }
        return await self.post(self.signer.issue(route), json.dumps(body).encode(), slash=slash)

    async def post(self, token: str, body: bytes, signature: str | None = None, *, slash: str = "") -> httpx.Response:
        headers = {"X-Awaithumans-Signature": sign(body, self.key) if signature is None else signature}
        return await self.http.post(f"/callbacks/{token}{slash}", content=body, headers=headers)

    async def register(self, route: Route, task_id: str = "task-1") -> httpx.Response:
        bearer = self.signer.prove(route, task_id)
        return await self.http.put(
            f"/waits/{task_id}", json={"timeout_seconds": 900}, headers={"Authorization": f"Bearer {bearer}"}
        )


def settings_for(humans: TaskServer, relay_url: str, secret: str | None = None) -> Settings:
    return Settings.load(
        url=humans.url,
        admin_api_token=humans.token,
        relay_url=relay_url,
        relay_secret=secret or secrets.token_urlsafe(32),
        payload_key=humans.payload_key,
    )


def settings_without_servers() -> Settings:
    """All settings of a relay, with addresses at which nothing listens."""
    return Settings.load(
        url="http://127.0.0.1:9",
        admin_api_token="t",
        relay_url="http://127.0.0.1:9",
        relay_secret=secrets.token_urlsafe(32),
        payload_key=secrets.token_urlsafe(32),
    )


def changed(settings: Settings, **fields: Any) -> Settings:
    return Settings.load(**settings.model_dump() | fields)


def uvicorn_process(folder: Path, app: str, port: int, settings: Settings, *flags: str) -> Process:
    """Return the process of an application of its own, for instance `mounted:app` from `mounted.py` in the folder."""
    return Process(
        [sys.executable, "-m", "uvicorn", app, "--port", str(port), *flags],
        folder,
        {
            "AWAITHUMANS_RELAY_SECRET": settings.relay_secret[0].get_secret_value(),
            "AWAITHUMANS_PAYLOAD_KEY": settings.payload_key[0].get_secret_value(),
            "AWAITHUMANS_ADMIN_API_TOKEN": "token",
            "PYTHONPATH": str(folder),
        },
    )


@asynccontextmanager
async def served(app: FastAPI, port: int, **options: Any) -> AsyncGenerator[None]:
    """Serve an app on 127.0.0.1 in this process, with options of uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, **options))
    # The test process keeps its own signal handlers.
    serving = asyncio.create_task(server._serve())
    try:
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def running_relay(
    engines: Sequence[Engine],
    humans: TaskServer,
    folder: Path,
    *,
    settings: Settings | None = None,
    port: int = 0,
    database: str | None = None,
    access_log: bool = False,
) -> AsyncGenerator[RunningRelay]:
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    settings = settings or settings_for(humans, url)
    database = database or f"sqlite:///{folder / 'relay.db'}"
    app = create_app(engines, settings=settings, database=database)
    store = Store(database)
    try:
        async with served(app, port, log_level="warning", access_log=access_log):
            yield RunningRelay(url, settings, store)
    finally:
        await store.stop()
