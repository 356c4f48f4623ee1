"""Engines in doubt -> a look whether they are there -> `/readyz` and the log.

One delivery that failed may be its target's own trouble, and five in a row may take a while to come together. So an
engine that can be asked (`Reachable`) is asked at the first one, and then until it answers; and once at the start.
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
"""An engine that has not answered for this long is away."""
REST_SECONDS = 5.0
"""Between two looks at an engine that is there, however many deliveries fail meanwhile."""
BACKOFF = Backoff(first=1.0, most=15.0)
"""Between looks at one that is not."""


class Lookout:
    """Asks engines whether they are there.

    Args:
        engines: Those that cannot be asked are left out.
        health: Whose doubts these are, and what is told of them.
    """

    def __init__(self, engines: Iterable[Engine], health: Health) -> None:
        self._health = health
        self._asked = {engine.name: engine for engine in engines if isinstance(engine, Reachable)}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Ask while the block runs."""
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
            if not reach.doubted.is_set():  # work was done with it meanwhile
                return True
            reach.failed(error)
            if first:
                told = "engine %s does not answer (%s: %s); it is asked until it does"
                logger.warning(told, name, type(error).__name__, error)
            return False
        reach.is_there()
        return True
