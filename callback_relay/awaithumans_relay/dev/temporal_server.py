"""The Temporal dev server as a process."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from awaithumans_relay.dev.ports import free_port
from awaithumans_relay.dev.processes import READY_SECONDS, TAIL_CHARS, Process, ServerFailedError, tool

NAMESPACE = "default"
"""The namespace that the dev server always has."""


class TemporalServer:
    """The real Temporal dev server with a database file of its own.

    Args:
        folder: Where it keeps its files.
        ui: Whether to serve the web page.
        flags: More flags of `temporal server start-dev`.
        port: Its port on 127.0.0.1. Default: a free one.
        ui_port: The port of the web page. Default: a free one.
        kept_open: File descriptors that its process inherits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ui: bool = False,
        flags: Sequence[str] = (),
        port: int | None = None,
        ui_port: int | None = None,
        kept_open: Sequence[int] = (),
    ) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.ui_port = (ui_port or free_port()) if ui else None
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
            kept_open=kept_open,
        )

    async def start(self) -> None:
        """Start it, and return when it accepts workflows."""
        from temporalio.client import Client

        self.process.start()
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                client = await Client.connect(self.address)
                await client.count_workflows()
            except RuntimeError:
                if time.monotonic() > until or not self.process.alive:
                    raise ServerFailedError(f"Temporal did not start:\n{self.process.output()[-TAIL_CHARS:]}") from None
                await asyncio.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()
