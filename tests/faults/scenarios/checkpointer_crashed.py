"""PostgreSQL, which has the checkpoints of graphs, crashes while people answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    await asyncio.to_thread(stage.postgres.crash)
    yield
    await asyncio.to_thread(stage.postgres.start_again)


SCENARIO = Scenario(
    part="checkpointer",
    fault="PostgreSQL with the checkpoints and the waits crashes, and is down while people answer",
    result="No node runs while its result could not be stored. Each thread is resumed once.",
    during=fault,
    caller="graph",
)
