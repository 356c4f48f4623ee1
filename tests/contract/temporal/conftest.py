"""One relay and one worker for every test of this package, in both modes: signal and activity."""

from collections.abc import AsyncGenerator

import pytest
from devservers import HumansServer, TemporalServer
from temporalio.client import Client

from tests.support.callers import TemporalCaller
from tests.support.relay import RunningRelay, running_relay
from tests.support.temporal import PeopleWithPromptChecks


@pytest.fixture(params=["signal", "activity"])
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="package")
async def caller(temporal: TemporalServer) -> TemporalCaller:
    return TemporalCaller(temporal.address)


@pytest.fixture(scope="package")
async def relay(
    caller: TemporalCaller, humans: HumansServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[RunningRelay]:
    async with (
        running_relay([caller.engine], humans, tmp_path_factory.mktemp("temporal-relay")) as running,
        caller.ready(running.settings),
    ):
        yield running


@pytest.fixture
def client(relay: RunningRelay, caller: TemporalCaller) -> Client:
    assert relay.url
    return caller.client


@pytest.fixture
async def people(humans: HumansServer, relay: RunningRelay) -> AsyncGenerator[PeopleWithPromptChecks]:
    hasty = PeopleWithPromptChecks(humans, relay)
    yield hasty
    await hasty.aclose()
