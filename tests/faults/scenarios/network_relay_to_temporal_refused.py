"""The relay cannot reach Temporal."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_temporal.breaks("refuse")
    yield
    stage.relay_to_temporal.heal()


SCENARIO = Scenario(
    part="network",
    fault="The relay cannot reach Temporal",
    result="The relay keeps the answers, and delivers them when Temporal can be reached.",
    during=fault,
)
