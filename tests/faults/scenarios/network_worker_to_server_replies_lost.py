"""The server's replies to workers are lost while workflows ask."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.caller_to_server.breaks("lose replies")
    yield
    stage.caller_to_server.heal()


SCENARIO = Scenario(
    part="network",
    fault="The server's replies to workers are lost while workflows ask",
    result="The requests are repeated under the same idempotency key, so there is one question for each workflow.",
    during=fault,
    asks=True,
    seconds=25.0,
)
