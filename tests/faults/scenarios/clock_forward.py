"""The wall clock of a relay is set forward by a day, and back."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.clock.write_text("86400")
    yield
    stage.clock.write_text("0")


SCENARIO = Scenario(
    part="clock",
    fault="The relay's clock is set forward by a day while people answer, and back",
    result="No wait expires, and no answer is delayed by the step.",
    during=fault,
)
