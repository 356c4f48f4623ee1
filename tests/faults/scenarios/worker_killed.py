"""The worker is killed while workflows wait, and people answer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.worker.kill()
    yield
    stage.worker.start()


SCENARIO = Scenario(
    part="worker",
    fault="Killed, and not running while people answer",
    result="Temporal keeps the delivered answers. The next worker replays the workflows and uses each once.",
    during=fault,
)
