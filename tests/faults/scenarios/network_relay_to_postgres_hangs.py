"""The connection between relay and PostgreSQL hangs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_database.breaks("hang")
    yield
    stage.relay_to_database.heal()


SCENARIO = Scenario(
    part="network",
    fault="The connection between relay and PostgreSQL hangs while people answer",
    result="Callbacks are not acknowledged, so the server sends them again.",
    during=fault,
    postgres=True,
)
