"""Temporal is killed while people answer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.temporal.process.kill()
    yield
    await stage.temporal.start()


SCENARIO = Scenario(
    part="Temporal",
    fault="Killed, and down while people answer",
    result="The relay keeps the answers, and delivers them when Temporal is back.",
    during=fault,
)
