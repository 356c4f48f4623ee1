"""The Temporal dev server as a process."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from devservers.ports import free_port
from devservers.processes import READY_SECONDS, Process, tool


class TemporalServer:
    """The real Temporal dev server with a database file of its own."""

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
