"""A relay is killed several times while answers arrive."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    for _ in range(4):
        await asyncio.sleep(random.uniform(0.2, 1.5))  # noqa: S311 - not a secret
        stage.relay.kill()
        await stage.start_relay(stage.relay)
    yield


SCENARIO = Scenario(
    part="relay",
    fault="Killed and started four times at random moments while people answer",
    result="What was not acknowledged is sent again, and what was delivered twice is used once.",
    during=fault,
    seconds=0.0,
)
