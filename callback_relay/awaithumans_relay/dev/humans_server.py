"""The awaithumans server as a process."""

import asyncio
import base64
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import httpx

from awaithumans_core.http.clients import async_client
from awaithumans_relay.dev.ports import free_port
from awaithumans_relay.dev.processes import POLL_SECONDS, Process, tool

SET_UP_SECONDS = 60.0
"""Limit of the wait for the set-up link, which the server prints soon after its start."""


def new_token() -> str:
    """Return a new token or secret."""
    return secrets.token_urlsafe(32)


def new_payload_key() -> str:
    """Return a new root key of a server, in the form that the server reads."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


class HumansServer:
    """The real awaithumans server with a SQLite file of its own.

    Args:
        folder: Where it keeps its files.
        port: Its port on 127.0.0.1. Default: a free one.
        token: Its API token. Default: a new one.
        payload_key: Its root key. Default: a new one.
        kept_open: File descriptors that its process inherits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        token: str | None = None,
        payload_key: str | None = None,
        kept_open: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = token or new_token()
        self.payload_key = payload_key or new_payload_key()
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
            kept_open=kept_open,
        )

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        self.process.start()
        await self.process.answers(f"{self.url}/api/health")

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def people(self) -> httpx.AsyncClient:
        """Return an authenticated client for the server's API, which the dashboard uses too."""
        return async_client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=15.0, trust_env=False
        )

    async def make_operator(self, email: str, display_name: str, password: str | None = None) -> str:
        """Create the first operator of the dashboard and return the password.

        Args:
            email: What the operator logs in with.
            display_name: The name that others see.
            password: Default: a new one.

        Raises:
            TimeoutError: the server has not printed its set-up link within `SET_UP_SECONDS`.
        """
        async with asyncio.timeout(SET_UP_SECONDS):
            while not (found := re.findall(r"/setup\?token=([\w-]+)", self.process.output())):
                await asyncio.sleep(POLL_SECONDS)
        password = password or secrets.token_urlsafe(12)
        body = {"token": found[-1], "email": email, "password": password, "display_name": display_name}
        async with self.people() as people:
            (await people.post("/api/setup/operator", json=body)).raise_for_status()
        return password
