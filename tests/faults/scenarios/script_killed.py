"""Scripts are killed while they wait, and started again."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    for script in stage.scripts.values():
        script.kill()
    yield
    for script in stage.scripts.values():
        script.start()


SCENARIO = Scenario(
    part="worker",
    fault="Scripts with an `idempotency_key` are killed, not running while people answer, and started again",
    result="Each finds the answer to its question, and asks no second one.",
    during=fault,
    caller="script",
)
