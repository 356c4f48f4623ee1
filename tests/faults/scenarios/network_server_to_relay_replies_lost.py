"""The relay's replies to callbacks are lost."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import CALLBACKS, Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.to_relay.breaks("lose replies", only=CALLBACKS)
    yield
    stage.to_relay.heal()


SCENARIO = Scenario(
    part="network",
    fault="The relay's replies to callbacks are lost",
    result="The server sends them again. Each answer is used once.",
    during=fault,
)
