"""The awaithumans server as a process."""

import asyncio
import base64
import re
import secrets
from pathlib import Path

import httpx

from devservers.ports import free_port
from devservers.processes import Process, tool

SET_UP_SECONDS = 60.0
"""Limit of the wait for the set-up link, which the server prints soon after its start."""


class HumansServer:
    """The real awaithumans server with a SQLite file of its own and keys generated for this run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_urlsafe(32)
        self.payload_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self.mail = folder / "mail"
        self.process = Process(
            # `serve` instead of `dev`: it restarts on the same port, and uses no files outside its folder.
            [tool("awaithumans"), "serve", "--host", "127.0.0.1", "--port", str(self.port)],
            folder,
            {
                "AWAITHUMANS_PAYLOAD_KEY": self.payload_key,
                "AWAITHUMANS_ADMIN_API_TOKEN": self.token,
                "AWAITHUMANS_PUBLIC_URL": self.url,
                "AWAITHUMANS_DB_PATH": str(folder / "tasks.db"),
            },
        )

    async def start(self) -> None:
        self.process.start()
        await self.process.answers(f"{self.url}/api/health")

    def stop(self) -> None:
        self.process.stop()

    def people(self) -> httpx.AsyncClient:
        """Return an authenticated client for the server's API, which the dashboard uses too."""
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=15.0)

    async def make_operator(self, email: str, display_name: str) -> str:
        """Create the first operator of the dashboard and return the password.

        Raises:
            TimeoutError: the server has not printed its set-up link within `SET_UP_SECONDS`.
        """
        async with asyncio.timeout(SET_UP_SECONDS):
            while not (found := re.search(r"/setup\?token=([\w-]+)", self.process.output())):
                await asyncio.sleep(0.1)
        password = secrets.token_urlsafe(12)
        body = {"token": found[1], "email": email, "password": password, "display_name": display_name}
        async with self.people() as people:
            (await people.post("/api/setup/operator", json=body)).raise_for_status()
        return password
