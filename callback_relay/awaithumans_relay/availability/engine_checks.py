"""Engines that may be unreachable -> a check -> `/readyz` and the log.

One failed delivery may be its target's own problem, and five consecutive failures may take a while to occur. So an
engine that can be checked (`Reachable`) is checked after the first failure, and then until it responds. It is also
checked once at the start.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from awaithumans_core.engine import Engine, Reachable
from awaithumans_core.retry import Backoff
from awaithumans_relay.availability.health import Health
from awaithumans_relay.availability.tracker import AvailabilityTracker
from awaithumans_relay.runtime.background import beside

RESPONSE_SECONDS = 10.0
"""Seconds without a response after which an engine counts as unreachable."""
REST_SECONDS = 5.0
"""Minimum seconds between two checks of a reachable engine, however many deliveries fail meanwhile."""
BACKOFF = Backoff(first=1.0, most=15.0)
"""Delay between checks of an unreachable engine."""


class EngineChecks:
    """Checks whether engines are reachable.

    Args:
        engines: The relay's engines. Those that cannot be checked are ignored.
        health: Shows which engines are to be checked, and records the results.
    """

    def __init__(self, engines: Iterable[Engine], health: Health) -> None:
        self._health = health
        self._engines = {engine.name: engine for engine in engines if isinstance(engine, Reachable)}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Check engines while the block runs."""
        checks = {f"check engine:{name}": self._run(name, engine) for name, engine in self._engines.items()}
        async with beside(**checks):
            yield

    async def _run(self, name: str, engine: Reachable) -> None:
        tracker = self._health.engine(name)
        tracker.check_due.set()
        while True:
            await tracker.check_due.wait()
            failures = 0
            while tracker.check_due.is_set() and not await _responds(engine, tracker):
                failures += 1
                await asyncio.sleep(BACKOFF.delay(failures))
            await asyncio.sleep(REST_SECONDS)


async def _responds(engine: Reachable, tracker: AvailabilityTracker) -> bool:
    try:
        async with asyncio.timeout(RESPONSE_SECONDS):
            await engine.check()
    except Exception as error:
        if not tracker.check_due.is_set():  # a delivery succeeded in the meantime
            return True
        tracker.failed(error)
        return False
    tracker.responded()
    return True
