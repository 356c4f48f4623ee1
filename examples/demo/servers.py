"""Start the real servers on free ports of 127.0.0.1, each with a folder of its own, and stop them by process id."""

import asyncio
import atexit
import base64
import functools
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

READY_SECONDS = 60.0
"""A first start compiles and migrates; later ones take two seconds."""
STOP_SECONDS = 10.0


PORTS = range(10_240, 32_640)
"""Below those that a system gives to whoever connects: one of these could be taken between its choice and its use."""
BLOCK = 128


@functools.cache
def _own_ports() -> tuple[Iterator[int], socket.socket]:
    """Ports of a block that only this process chooses from, round and round; and what claims the block meanwhile."""
    blocks = PORTS[::BLOCK]
    for place in range(len(blocks)):
        first = blocks[(os.getpid() + place) % len(blocks)]
        claim = socket.socket(type=socket.SOCK_DGRAM)  # UDP has numbers of its own, which no server here uses
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:  # another process has this block
            claim.close()
        else:
            atexit.register(claim.close)
            return itertools.cycle(range(first, first + BLOCK)), claim
    raise RuntimeError(f"too many processes choose ports of 127.0.0.1 between {PORTS.start} and {PORTS.stop}")


def free_port() -> int:
    """A port nobody listens on, and which nobody else takes by chance before the server that is told it does."""
    ports, _ = _own_ports()
    for port in itertools.islice(ports, BLOCK):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports of this process are in use")


def tool(name: str) -> str:
    """A command of this environment, whether or not the environment is activated."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: pip install 'awaithumans-workflows[demo]'")
    return found


@dataclass
class Process:
    """One server process in a group of its own, its output in a file."""

    command: list[str]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    log: str = "server.log"
    _running: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        own = ("AWAITHUMANS_", "TEMPORAL_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        with (self.folder / self.log).open("ab") as output:
            self._running = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=inherited | {"HOME": str(self.folder), "PYTHONUNBUFFERED": "1"} | dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        if self._running is None:
            raise RuntimeError("not started")
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._running is None:
            return
        for sign in (how, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self._running.wait(STOP_SECONDS)
                break
        self._running = None

    def output(self) -> str:
        return (self.folder / self.log).read_text(errors="replace")

    async def answers(self, url: str) -> None:
        """Wait until the URL answers with anything below 500."""
        until = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient() as http:
            while time.monotonic() < until:
                if not self.alive:
                    raise RuntimeError(f"{self.command[0]} ended:\n{self.output()[-2000:]}")
                with suppress(httpx.RequestError):
                    if (await http.get(url, timeout=2.0)).status_code < 500:
                        return
                await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.command[0]} does not answer at {url}:\n{self.output()[-2000:]}")


class HumansServer:
    """The real awaithumans server on its own SQLite file, with keys made for this run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_urlsafe(32)
        self.payload_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self.mail = folder / "mail"
        self.process = Process(
            # `serve`, not `dev`: it comes back on the same port, and reads and writes nothing outside its folder.
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
        """Speaks the server's API, as the dashboard does."""
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=15.0)


class TemporalServer:
    """The real Temporal dev server on its own database file."""

    def __init__(self, folder: Path, *, ui: bool = False, flags: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.ui_port = free_port() if ui else None
        shown = ["--ui-port", str(self.ui_port)] if ui else ["--headless"]
        self.process = Process(
            [
                tool("temporal"),
                "server",
                "start-dev",
                "--ip",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--http-port",
                str(free_port()),
                "--metrics-port",
                str(free_port()),
                "--db-filename",
                str(folder / "temporal.db"),
                "--log-level",
                "error",
                *shown,
                *flags,
            ],
            folder,
        )

    async def start(self) -> None:
        from temporalio.client import Client

        self.process.start()
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                client = await Client.connect(self.address)
                await client.count_workflows()
            except RuntimeError:
                if time.monotonic() > until or not self.process.alive:
                    raise RuntimeError(f"Temporal did not start:\n{self.process.output()[-2000:]}") from None
                await asyncio.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        self.process.stop()


class RelayServer:
    """The relay, from its command line, in a process of its own."""

    def __init__(
        self,
        folder: Path,
        humans: HumansServer,
        arguments: list[str],
        *,
        secret: str,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = Process(
            [tool("awaithumans-relay"), "serve", "--port", str(self.port), *arguments],
            folder,
            {
                "AWAITHUMANS_URL": humans.url,
                "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
                "AWAITHUMANS_PAYLOAD_KEY": humans.payload_key,
                "AWAITHUMANS_RELAY_SECRET": secret,
                "AWAITHUMANS_RELAY_URL": self.url,
                **(env or {}),
            },
            log="relay.log",
        )

    async def start(self) -> None:
        self.process.start()
        await self.process.answers(f"{self.url}/readyz")

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()


class Server(Protocol):
    """Can be started and stopped."""

    async def start(self) -> None: ...
    def stop(self) -> None: ...


@asynccontextmanager
async def started(*servers: Server) -> AsyncGenerator[None]:
    """Start all at once; stop them in the opposite order, whatever happens."""
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.start())
        yield
    finally:
        for server in reversed(servers):
            await asyncio.to_thread(server.stop)
