"""Measurements of server and client processes from outside: CPU time, memory, requests and connections.

The processes do no work for a measurement. CPU time and memory are the kernel's figures for a process. Requests are the
lines of the server's access log, so they have the same meaning for every client. A long poll is logged when it ends.
Connections are those that the client process has established to the server's port.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

SAMPLE_SECONDS = 0.5
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    """Cost of a phase of waiting, per minute."""

    seconds: float
    server_cpu: float
    requests: float
    client_cpu: float


class Meter:
    """Measures one server process and one client process while both run."""

    def __init__(self, server_pid: int, client_pid: int, port: int, log: Path) -> None:
        self._server = psutil.Process(server_pid)
        self._client = psutil.Process(client_pid)
        self._port = port
        self._log = log
        self.connections = 0
        """Maximum number of simultaneous connections."""
        self.memory = 0.0
        """Maximum resident memory of the client, in megabytes."""

    async def watch(self) -> None:
        """Sample twice a second until cancelled or until the client has ended."""
        with suppress(psutil.NoSuchProcess):
            while True:
                self.memory = max(self.memory, self.memory_now())
                self.connections = max(self.connections, self._connections())
                await asyncio.sleep(SAMPLE_SECONDS)

    async def cost(self, seconds: float, ended: asyncio.Event) -> Cost | None:
        """Measure for `seconds` or until the client ends. Return None if the client has ended already."""
        if ended.is_set():
            return None
        began, server, client, requests = time.monotonic(), cpu(self._server), cpu(self._client), self._requests()
        client_now = client
        until = began + seconds
        while (left := until - time.monotonic()) > 0 and not ended.is_set():
            await asyncio.sleep(min(left, SAMPLE_SECONDS))
            with suppress(psutil.NoSuchProcess):
                client_now = cpu(self._client)
        took = time.monotonic() - began
        minute = 60 / took
        return Cost(
            took,
            (cpu(self._server) - server) * minute,
            (self._requests() - requests) * minute,
            (client_now - client) * minute,
        )

    def memory_now(self) -> float:
        return memory(self._client.pid)

    def _connections(self) -> int:
        return sum(
            found.status == psutil.CONN_ESTABLISHED and bool(found.raddr) and found.raddr.port == self._port
            for found in self._client.net_connections("tcp4")
        )

    def _requests(self) -> int:
        return self._log.read_bytes().count(b' HTTP/1.1" ')


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children since their start."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


async def cpu_per_minute(pids: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Measure for `seconds` and return the CPU seconds per minute of each process, by name."""
    found = {name: psutil.Process(pid) for name, pid in pids.items()}
    before = {name: cpu(process) for name, process in found.items()}
    began = time.monotonic()
    await asyncio.sleep(seconds)
    minutes = (time.monotonic() - began) / 60
    return {name: (cpu(process) - before[name]) / minutes for name, process in found.items()}


def memory(pid: int) -> float:
    """Return the resident memory of a process in megabytes."""
    return float(psutil.Process(pid).memory_info().rss) / MEGABYTE
