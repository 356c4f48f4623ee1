"""Shared fixtures: relays and stores, and a graph whose answers the tests deliver.

A test module that needs a special engine, task server, settings or saver overrides the fixture of that name.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from temporalio.client import Client

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_core import Engine, Settings
from awaithumans_relay.store import Store
from tests.support.engines import CollectingEngine
from tests.support.graph_bench import Bench
from tests.support.langgraph_server import LangGraphServer, registering_relay
from tests.support.people import People
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.servers import FakeServer, TaskServer


@pytest.fixture
async def engine() -> Engine:
    """Return the engine of `relay`."""
    return CollectingEngine()


@pytest.fixture
def task_server(fake: FakeServer) -> TaskServer:
    """Return the task server of `relay`."""
    return fake


@pytest.fixture
def relay_settings() -> Settings | None:
    """Return the settings of `relay`; None gives it settings of its own."""
    return None


@pytest.fixture
async def relay(
    engine: Engine, task_server: TaskServer, relay_settings: Settings | None, tmp_path: Path
) -> AsyncGenerator[RunningRelay]:
    """Run a relay with one engine on a database of its own."""
    async with running_relay([engine], task_server, tmp_path, settings=relay_settings) as running:
        yield running


@pytest.fixture
async def relay_client(relay: RunningRelay, task_server: TaskServer) -> AsyncGenerator[Server]:
    """Send callbacks and registrations to `relay`."""
    client = Server(relay, task_server)
    yield client
    await client.http.aclose()


@pytest.fixture(scope="module")
async def temporal_relay(
    humans: HumansServer, temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[RunningRelay]:
    """Run a relay that delivers to the Temporal dev server."""
    engine = TemporalEngine(lambda: Client.connect(temporal.address))
    async with running_relay([engine], humans, tmp_path_factory.mktemp("temporal-relay")) as running:
        yield running


@pytest.fixture
async def served_relay(
    humans: HumansServer, langgraph_server: LangGraphServer, tmp_path: Path
) -> AsyncGenerator[RunningRelay]:
    """Run a relay that takes the registrations of the LangGraph server's graphs."""
    async with registering_relay(humans, langgraph_server, tmp_path) as running:
        yield running


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    """Open a store on a database of its own."""
    opened = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return the path of the checkpoints of `saver`."""
    return tmp_path / "checkpoints.db"


@pytest.fixture
async def saver(database: Path) -> AsyncGenerator[Any]:
    """Open the checkpointer of `bench`."""
    async with AsyncSqliteSaver.from_conn_string(str(database)) as opened:
        yield opened


@pytest.fixture
def bench(saver: Any, registrar: RunningRelay, people: People) -> Bench:
    """Return a graph under test whose routes are registered."""
    bench = Bench(saver, registrar.human_tasks(), people)
    bench.store = registrar.store
    return bench
