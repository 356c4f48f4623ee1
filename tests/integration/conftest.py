"""Shared fixtures: a relay that takes registrations, and a graph whose answers the tests deliver."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from devservers import HumansServer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.support.engines import CollectingEngine
from tests.support.graph_bench import Bench
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay


@pytest.fixture(scope="module")
async def registrar(humans: HumansServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningRelay]:
    """Run a relay that takes registrations; the tests deliver the answers themselves."""
    async with running_relay([CollectingEngine("langgraph")], humans, tmp_path_factory.mktemp("registrar")) as running:
        yield running


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.db"


@pytest.fixture
async def bench(registrar: RunningRelay, people: People, database: Path) -> AsyncGenerator[Bench]:
    async with AsyncSqliteSaver.from_conn_string(str(database)) as saver:
        bench = Bench(saver, registrar.human_tasks(), people)
        bench.store = registrar.store
        yield bench
