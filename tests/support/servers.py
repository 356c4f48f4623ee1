"""The two task servers under one contract: the real one and `FakeHumans`, which must behave alike."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx
from devservers import Process

from awaithumans_core.testing import FakeHumans


class TaskServer(Protocol):
    """A task server on a port."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def payload_key(self) -> str: ...
    @property
    def mail(self) -> Path: ...

    def people(self) -> httpx.AsyncClient:
        """Return a client of the server's API, as the dashboard uses it."""
        ...


class FakeServer:
    """A `FakeHumans` on a port and in real time."""

    def __init__(self, fake: FakeHumans, url: str, folder: Path) -> None:
        self.fake = fake
        self.url = url
        self.token = fake.token
        self.payload_key = fake.payload_key
        self.mail = folder / "mail"

    def people(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60.0)


class OwnProcess(Protocol):
    """A server that is a process of this machine."""

    process: Process

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        ...


@asynccontextmanager
async def until_killed(server: OwnProcess) -> AsyncGenerator[None]:
    """Run a server that is not used again. Stopping one takes up to ten seconds, while it finishes what it holds."""
    try:
        await server.start()
        yield
    finally:
        await asyncio.to_thread(server.process.kill)
