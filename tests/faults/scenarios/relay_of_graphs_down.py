"""People answer questions of LangGraph threads while no relay runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay.kill()
    yield
    await stage.start_relay(stage.relay)


SCENARIO = Scenario(
    part="relay",
    fault="The relay that resumes LangGraph threads is killed, and not running while people answer",
    result="It resumes each thread once after its next start.",
    during=fault,
    caller="graph",
)
