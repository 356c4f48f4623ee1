"""Engines in doubt -> a check whether they are reachable -> `/readyz` and the log.

One failed delivery may be its target's own problem, and five consecutive failures may take a while to occur. So an
engine that can be checked (`Reachable`) is checked after the first failure, and then until it responds. It is also
checked once at the start.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from awaithumans_core.engine import Engine, Reachable
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.availability.health import Health
from awaithumans_relay.runtime.background import beside

logger = safe_logger("awaithumans.relay")

ANSWER_SECONDS = 10.0
"""Seconds without a response after which an engine counts as unreachable."""
REST_SECONDS = 5.0
"""Minimum seconds between two checks of a reachable engine, however many deliveries fail meanwhile."""
BACKOFF = Backoff(first=1.0, most=15.0)
"""Delay between checks of an unreachable engine."""


class Lookout:
    """Checks whether engines are reachable.

    Args:
        engines: The relay's engines. Those that cannot be checked are ignored.
        health: Marks engines as doubted, and records the results.
    """

    def __init__(self, engines: Iterable[Engine], health: Health) -> None:
        self._health = health
        self._asked = {engine.name: engine for engine in engines if isinstance(engine, Reachable)}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Check engines while the block runs."""
        async with beside(**{f"look out:{name}": self._look_out(name) for name in self._asked}):
            yield

    async def _look_out(self, name: str) -> None:
        doubted = self._health.engines[name].doubted
        doubted.set()
        while True:
            await doubted.wait()
            failures = 0
            while doubted.is_set() and not await self._there(name, first=not failures):
                failures += 1
                await asyncio.sleep(BACKOFF.delay(failures))
            if failures:
                logger.warning("engine %s answers again", name)
            await asyncio.sleep(REST_SECONDS)

    async def _there(self, name: str, *, first: bool) -> bool:
        reach = self._health.engines[name]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._asked[name].check()
        except Exception as error:
            if not reach.doubted.is_set():  # a delivery succeeded in the meantime
                return True
            reach.failed(error)
            if first:
                told = "engine %s does not answer (%s: %s); it is asked until it does"
                logger.warning(told, name, type(error).__name__, error)
            return False
        reach.is_there()
        return True
