"""A relay is killed after it has acknowledged answers that it could not deliver."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import ANSWERED_DURING, Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_temporal.breaks("refuse")
    await stage.answer(ANSWERED_DURING)
    await stage.until_stored("answered", len(ANSWERED_DURING))
    stage.relay.kill()
    yield
    stage.relay_to_temporal.heal()
    await stage.start_relay(stage.relay)


SCENARIO = Scenario(
    part="relay",
    fault="Killed (SIGKILL) with acknowledged answers that it could not deliver, because Temporal was unreachable",
    result="The answers are in its database. It delivers each of them once after its next start.",
    during=fault,
    seconds=2.0,
)
