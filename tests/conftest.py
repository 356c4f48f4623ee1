"""Real servers, started once per test process on free ports, each in its own folder, and killed by process id."""

import os
import random
import uuid
from collections.abc import AsyncGenerator, Generator

import hypothesis
import pytest
from devservers import HumansServer, TemporalServer

from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans
from tests.support.engines import CollectingEngine
from tests.support.langgraph_server import LangGraphServer
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay, running_relay
from tests.support.servers import FakeServer, TaskServer, until_killed

# The same examples and jitter in every run, so that a change is judged by what it changes.
# `--hypothesis-profile=random` explores.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None, derandomize=False)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
async def humans(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[HumansServer]:
    """The real awaithumans server."""
    server = HumansServer(tmp_path_factory.mktemp("awaithumans"))
    async with until_killed(server):
        yield server


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeServer]:
    """A `FakeHumans` on a port and in real time."""
    humans = FakeHumans(clock=SystemClock())
    with humans.serving() as url:
        yield FakeServer(humans, url, tmp_path_factory.mktemp("fake"))


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> TaskServer:
    """Each of the two task servers, because every promise about one holds for the other."""
    found: TaskServer = request.getfixturevalue({"fake": "fake", "real": "humans"}[request.param])
    return found


@pytest.fixture
async def somebody(server: TaskServer) -> AsyncGenerator[People]:
    """Who answers on that server."""
    person = People(server)
    yield person
    await person.aclose()


@pytest.fixture(scope="session")
async def temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[TemporalServer]:
    """The real Temporal dev server, on which workflows can be paused."""
    pausing = ["--dynamic-config-value", "frontend.WorkflowPauseEnabled=true"]
    server = TemporalServer(tmp_path_factory.mktemp("temporal"), flags=pausing)
    async with until_killed(server):
        yield server


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer]:
    """The real PostgreSQL; `postgres.database()` returns a new database."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
async def langgraph_server(
    humans: HumansServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[LangGraphServer]:
    """The real LangGraph server."""
    graphs = ["ask", "ask_sync", "one", "two", "gathered", "decides", "swallows", "handles"]
    server = LangGraphServer(tmp_path_factory.mktemp("langgraph"), humans, *graphs)
    async with until_killed(server):
        yield server


@pytest.fixture
async def people(humans: HumansServer) -> AsyncGenerator[People]:
    """The people who answer on the real server."""
    somebody = People(humans)
    yield somebody
    await somebody.aclose()


@pytest.fixture(scope="module")
async def registrar(humans: HumansServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningRelay]:
    """Run a relay that takes registrations; the tests deliver the answers themselves."""
    engines = [CollectingEngine("langgraph"), CollectingEngine("temporal")]
    async with running_relay(engines, humans, tmp_path_factory.mktemp("registrar")) as running:
        yield running


@pytest.fixture
def question() -> str:
    """Return a question that no other test asks."""
    return f"Approve {uuid.uuid4().hex[:8]}?"


@pytest.fixture(autouse=True)
def same_jitter(request: pytest.FixtureRequest) -> None:
    """Spread load by the same random numbers in every run of a test."""
    if request.config.getoption("--hypothesis-profile", None) != "random":
        random.seed(request.node.nodeid)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remove the settings of the developer's shell and home directory."""
    for name in [name for name in os.environ if name.startswith(("AWAITHUMANS_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))
