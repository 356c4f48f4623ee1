"""The connection between worker and Temporal hangs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.worker_to_temporal.breaks("hang")
    yield
    stage.worker_to_temporal.heal()


SCENARIO = Scenario(
    part="network",
    fault="The connection between worker and Temporal hangs while people answer",
    result="Temporal keeps the delivered answers until a worker asks for them.",
    during=fault,
)
