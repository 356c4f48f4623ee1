"""PostgreSQL's replies to the relay are lost."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_database.breaks("lose replies")
    yield
    stage.relay_to_database.heal()


SCENARIO = Scenario(
    part="network",
    fault="PostgreSQL's replies to the relay are lost: it does not learn what has been committed",
    result="What is not known to be saved is not acknowledged, and saving it again changes nothing.",
    during=fault,
    postgres=True,
)
