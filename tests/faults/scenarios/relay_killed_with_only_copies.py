"""A relay is killed with answers that exist nowhere else, because the server has deleted them after the callbacks."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import ANSWERED_DURING, Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_temporal.breaks("refuse")
    stage.relay_to_server.breaks("refuse")  # no sweep, so the relay has the answers from callbacks only
    await stage.answer(ANSWERED_DURING)
    await stage.until_acknowledged(ANSWERED_DURING)
    stage.relay.kill()
    await stage.delete(ANSWERED_DURING)
    yield
    stage.relay_to_temporal.heal()
    stage.relay_to_server.heal()
    await stage.start_relay(stage.relay)


SCENARIO = Scenario(
    part="relay",
    fault="Killed right after it has acknowledged answers that it could not deliver; the server then deletes them",
    result="What it has acknowledged is in its database. It delivers each answer once after its next start.",
    during=fault,
    seconds=1.0,
)
