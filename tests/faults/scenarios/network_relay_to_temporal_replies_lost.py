"""Temporal's replies to the relay are lost."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_temporal.breaks("lose replies")
    yield
    stage.relay_to_temporal.heal()


SCENARIO = Scenario(
    part="network",
    fault="Temporal's replies to the relay are lost: it does not learn that its signals have arrived",
    result="The relay sends the signals again, and the workflows use each answer once.",
    during=fault,
    seconds=20.0,
)
