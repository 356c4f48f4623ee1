"""The awaithumans server is killed while scripts wait."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.humans.process.kill()
    yield
    await stage.humans.start()


SCENARIO = Scenario(
    part="awaithumans server",
    fault="Killed while scripts wait, and down while new ones ask",
    result="The scripts connect again, and ask each question once.",
    during=fault,
    caller="script",
    asks=True,
)
