"""Real servers: started once for a test process, on free ports, each in its own folder, stopped by process id."""

import os
from collections.abc import AsyncGenerator

import pytest
from examples.demo.servers import HumansServer, TemporalServer, started

from tests.support.people import People


@pytest.fixture(scope="session")
async def humans(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[HumansServer]:
    """The real awaithumans server."""
    server = HumansServer(tmp_path_factory.mktemp("awaithumans"))
    async with started(server):
        yield server


@pytest.fixture(scope="session")
async def temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[TemporalServer]:
    """The real Temporal dev server."""
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    async with started(server):
        yield server


@pytest.fixture
async def people(humans: HumansServer) -> AsyncGenerator[People]:
    """Somebody who answers."""
    somebody = People(humans)
    yield somebody
    await somebody.aclose()


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests do not depend on what the developer's shell or home directory says."""
    for name in [name for name in os.environ if name.startswith("AWAITHUMANS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))
