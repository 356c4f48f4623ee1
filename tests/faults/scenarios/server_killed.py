"""The awaithumans server is killed while workflows wait, and is down while new ones ask."""

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
    fault="Killed, and down while workflows ask",
    result="The new questions are asked, each once, when it is back. People who could not answer try again.",
    during=fault,
    asks=True,
)
