"""The checkpoints cannot be reached while people answer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_checkpoints.breaks("refuse")
    yield
    stage.relay_to_checkpoints.heal()


SCENARIO = Scenario(
    part="checkpointer",
    fault="Unreachable for the relay while people answer; the waits are reachable",
    result="The relay keeps the answers, and resumes each thread once when the checkpoints are back.",
    during=fault,
    caller="graph",
)
