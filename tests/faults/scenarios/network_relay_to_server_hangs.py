"""The relay's requests to the server hang."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_server.breaks("hang")
    yield
    stage.relay_to_server.heal()


SCENARIO = Scenario(
    part="network",
    fault="The relay's requests to the server hang: no sweep",
    result="Callbacks are delivered as before.",
    during=fault,
)
