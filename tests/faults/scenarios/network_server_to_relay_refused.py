"""The server cannot reach the relay."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import CALLBACKS, Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.to_relay.breaks("refuse", only=CALLBACKS)
    yield
    stage.to_relay.heal()


SCENARIO = Scenario(
    part="network",
    fault="The server cannot reach the relay: its callbacks are refused",
    result="The sweep finds the answers; the server's repeated callbacks change nothing.",
    during=fault,
)
