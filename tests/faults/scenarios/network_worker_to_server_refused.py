"""Workers cannot reach the server while workflows ask."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.caller_to_server.breaks("refuse")
    yield
    stage.caller_to_server.heal()


SCENARIO = Scenario(
    part="network",
    fault="Workers cannot reach the server while workflows ask",
    result="Each question is asked once, when the server can be reached.",
    during=fault,
    asks=True,
)
