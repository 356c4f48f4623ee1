"""A real LangGraph server, and a caller whose graph it runs."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from devservers import HumansServer, Process, free_port, tool
from langgraph_sdk.client import LangGraphClient

from awaithumans_adapters.langgraph import LangGraphServerEngine
from awaithumans_core import Engine, Route, Settings
from awaithumans_core.http.local_server import DISCOVERY_FILE
from tests.support.engines import CollectingEngine
from tests.support.relay import RunningRelay, running_relay, settings_for

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ROOT / "tests" / "support" / "served_graphs.py"
AUTHENTICATED = {"USER_TOKENS": "alice=token-of-alice,bob=token-of-bob", "RELAY_TOKEN": "token-of-relay"}
"""Users and relay of a server with authentication, as `examples/langgraph_auth.py` reads them."""


class LangGraphServer:
    """A `langgraph dev` server whose graphs ask through a relay at `relay_port`, which the test has to start."""

    def __init__(self, folder: Path, humans: HumansServer, *graphs: str, auth: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.relay_port = free_port()
        self.settings = settings_for(humans, f"http://127.0.0.1:{self.relay_port}")
        self.acts = folder / "acts"
        # As written by `awaithumans dev`, so that nodes discover address and token.
        self._discovery = {"url": humans.url, "pid": os.getpid(), "admin_token": humans.token}
        self._config: dict[str, Any] = {"dependencies": ["."], "graphs": {name: f"{GRAPHS}:{name}" for name in graphs}}
        self._config["webhooks"] = {
            "url": {"disable_loopback": False, "require_https": False}
        }  # that of a test is on this machine
        env = dict(AUTHENTICATED) if auth else {}
        if auth:
            self._config["auth"] = {"path": f"{auth}:auth"}
        self.process = Process(
            [
                tool("langgraph"),
                "dev",
                "--no-browser",
                "--no-reload",
                "--port",
                str(self.port),
                "--n-jobs-per-worker",
                "10",
            ],
            folder,
            {
                "ACTS": str(self.acts),
                "AWAITHUMANS_RELAY_URL": self.settings.relay(),
                "AWAITHUMANS_RELAY_SECRET": self.settings.relay_secret[0].get_secret_value(),
                "LANGGRAPH_CLI_NO_ANALYTICS": "1",
                "LANGGRAPH_NO_VERSION_CHECK": "true",
                "LANGSMITH_TRACING": "false",
                "PYTHONPATH": str(ROOT),
                **env,
            },
        )

    async def start(self) -> None:
        self.process.folder.mkdir(exist_ok=True)
        (self.process.folder / "langgraph.json").write_text(json.dumps(self._config))
        (self.process.folder / DISCOVERY_FILE).write_text(json.dumps(self._discovery))
        self.process.start()
        await self.process.answers(f"{self.url}/ok")

    def stop(self) -> None:
        self.process.stop()

    def client(self, token: str | None = None) -> LangGraphClient:
        # The server may close a kept connection at the moment it is used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return LangGraphClient(httpx.AsyncClient(base_url=self.url, timeout=60.0, limits=limits, headers=headers))


@asynccontextmanager
async def registering_relay(
    humans: HumansServer, server: LangGraphServer, folder: Path
) -> AsyncGenerator[RunningRelay]:
    """Run a relay that accepts the registrations of the server's graphs, while tests deliver the answers themselves."""
    shelf = CollectingEngine("langgraph-server")
    async with running_relay([shelf], humans, folder, settings=server.settings, port=server.relay_port) as relay:
        yield relay


@dataclass
class ServedCaller:
    """`await_human` in a node of a graph that a LangGraph server runs."""

    server: LangGraphServer
    graph: str = "ask"

    def __post_init__(self) -> None:
        self.served = LangGraphServerEngine(self.server.url)
        self.engine: Engine = self.served
        self.client = self.server.client()

    @property
    def acts(self) -> Counter[str]:
        return Counter(self.server.acts.read_text().split() if self.server.acts.exists() else ())

    @asynccontextmanager
    async def ready(self, settings: Settings) -> AsyncGenerator[None]:
        assert settings == self.server.settings, "the server asks with the settings it was started with"
        (assistant,) = await self.client.assistants.search(graph_id=self.graph)
        self.assistant_id = assistant["assistant_id"]
        yield
        await self.client.aclose()
        await self.served.aclose()

    async def ask(self, question: str, **options: Any) -> "WaitingServedThread":
        thread = await self.client.threads.create()
        asked = WaitingServedThread(thread["thread_id"], self)
        await asked.run({"name": asked.name, "options": {"task": question, **options}})
        return asked


@dataclass
class WaitingServedThread:
    name: str
    asker: ServedCaller

    async def run(self, state: dict[str, Any], **more: Any) -> None:
        """Run the thread with this input to its end or to its next question."""
        client = self.asker.client
        run = await client.runs.create(self.name, self.asker.graph, input=state, **more)
        await client.runs.join(self.name, run["run_id"])

    async def result(self) -> dict[str, Any]:
        while True:
            thread = await self.asker.client.threads.get(self.name)
            if thread["status"] == "idle" and thread["values"]:
                return dict(thread["values"]["told"])
            await asyncio.sleep(0.05)

    async def stop_waiting(self) -> None:
        await self.run({"name": self.name, "options": {"task": f"new input of {self.name}"}})

    def route(self, key: str) -> Route:
        return Route("langgraph-server", {"thread_id": self.name, "assistant_id": self.asker.assistant_id}, key)
