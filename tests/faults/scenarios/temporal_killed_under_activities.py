"""Temporal is killed while people answer questions asked with `via="activity"`."""

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
    fault='The same, for questions asked with `via="activity"`',
    result="The relay keeps the answers, and completes the activities when Temporal is back.",
    during=fault,
    caller="activity",
)
