"""The worker is killed several times while workflows ask."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import DURING, Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    asking = asyncio.create_task(stage.ask(DURING))
    for _ in range(3):
        await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - not a secret
        stage.worker.kill()
        stage.worker.start()
    yield
    await asking


SCENARIO = Scenario(
    part="worker",
    fault="Killed and started three times at random moments while workflows ask",
    result="The activities that ask are repeated under the same idempotency key, so each question is asked once.",
    during=fault,
    seconds=0.0,
)
