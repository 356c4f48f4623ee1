"""The awaithumans server is killed right after people have answered."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.faults import server_down
from tests.faults.scenario import ANSWERED_DURING, Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    await stage.answer(ANSWERED_DURING)
    async with server_down(stage):
        yield


SCENARIO = Scenario(
    part="awaithumans server",
    fault="Killed right after people have answered, before its callbacks",
    result="It sends the callbacks after its next start, or the sweep finds the answers.",
    during=fault,
    caller="activity",
)
