"""People answer while no relay runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    stage.relay.kill()
    yield
    await stage.start_relay(stage.relay)


SCENARIO = Scenario(
    part="relay",
    fault="Killed, and not running while people answer and workflows ask",
    result="The server repeats its callbacks and the workflows their registrations; the sweep finds answers sooner.",
    during=fault,
    asks=True,
)
