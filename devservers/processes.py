"""A server as a process: started in a folder of its own, awaited until ready, and stopped by its process id."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

READY_SECONDS = 60.0
"""Limit of a start. The first start compiles modules and migrates a database. Later ones take two seconds."""
STOP_SECONDS = 10.0


def tool(name: str) -> str:
    """Return the path of a command of this environment, whether or not the environment is activated."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: pip install 'awaithumans-workflows[demo]'")
    return found


@dataclass
class Process:
    """A server process in a process group of its own, with its output in a file."""

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
        """Kill the process with SIGKILL, like a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the process with SIGTERM, and with SIGKILL if it does not end in time."""
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
        """Wait until the URL answers with a status below 500."""
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


class Server(Protocol):
    """A server that can be started and stopped."""

    async def start(self) -> None: ...
    def stop(self) -> None: ...


@asynccontextmanager
async def started(*servers: Server) -> AsyncGenerator[None]:
    """Start all servers concurrently for the duration of the block, then stop them in reverse order."""
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.start())
        yield
    finally:
        for server in reversed(servers):
            await asyncio.to_thread(server.stop)
