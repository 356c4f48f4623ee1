"""One of two relays on one database is killed while it delivers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import ANSWERED_DURING, Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay_to_temporal.breaks("lose replies")
    await stage.answer(ANSWERED_DURING)
    await stage.until_stored("answered", len(ANSWERED_DURING))
    stage.relay.kill()
    stage.relay_to_temporal.heal()
    yield
    await stage.start_relay(stage.relay)


SCENARIO = Scenario(
    part="relay",
    fault="One of two relays is killed in the middle of its deliveries; the other goes on",
    result="The other takes over when the leases end, and delivers again what may have arrived. It is used once.",
    during=fault,
    relays=2,
    postgres=True,
)
