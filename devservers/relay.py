"""The relay as a process."""

from collections.abc import Mapping
from pathlib import Path

from awaithumans_relay.dev.humans_server import HumansServer
from awaithumans_relay.dev.ports import free_port
from awaithumans_relay.dev.processes import Process, tool


class RelayServer:
    """The relay in a process of its own, started by its command line."""

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
