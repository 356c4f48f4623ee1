"""Workers cannot register at the relay while workflows ask."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import REGISTRATIONS, Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.to_relay.breaks("refuse", only=REGISTRATIONS)
    yield
    stage.to_relay.heal()


SCENARIO = Scenario(
    part="network",
    fault="Workers cannot reach the relay while workflows ask",
    result="The registrations are repeated. Answers to questions that are not registered yet are called back.",
    during=fault,
    asks=True,
)
