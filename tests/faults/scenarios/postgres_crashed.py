"""PostgreSQL, which has the waits, crashes while people answer."""

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
    part="PostgreSQL",
    fault="Crashes, and is down while people answer and workflows ask",
    result="The relay refuses callbacks and registrations with 503, so they are repeated.",
    during=fault,
    postgres=True,
    asks=True,
)
