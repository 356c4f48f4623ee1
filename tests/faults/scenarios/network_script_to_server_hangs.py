"""The connections between scripts and the server hang."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.caller_to_server.breaks("hang")
    yield
    stage.caller_to_server.heal()


SCENARIO = Scenario(
    part="network",
    fault="The connections between scripts and the server hang while people answer and scripts ask",
    result="The scripts read the answers when the connections carry again, or on new ones.",
    during=fault,
    caller="script",
    asks=True,
)
