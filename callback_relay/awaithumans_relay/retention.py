"""Delivered waits are deleted after a while, so that the table does not grow for ever.

What is open, answered or parked is never deleted. A callback that comes again for a wait that was deleted makes a new
one, and delivering it again is harmless.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.beside import beside
from awaithumans_relay.clock_steps import ClockSteps
from awaithumans_relay.store import Store

logger = safe_logger("awaithumans.relay")

RETENTION = timedelta(days=30)
EVERY_SECONDS = 3600.0
CHUNK = 1000
"""Deleted in one transaction, so that callbacks do not wait behind a month's waits."""


class Retention:
    """Deletes what was delivered longer ago than `keep`."""

    def __init__(self, store: Store, keep: timedelta = RETENTION) -> None:
        self._store = store
        self._keep = keep.total_seconds()
        self._steps = ClockSteps(store.steady)
        self._steps.note(store.clock())

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Look once an hour while the block runs."""
        async with beside(retention=self._run()):
            yield

    async def _run(self) -> None:
        while True:
            try:
                if forgotten := await self.forget():
                    logger.info("deleted %d waits that were delivered %.0f days ago", forgotten, self._keep / 86400)
            except Exception:
                logger.exception("could not delete old waits; trying again in an hour")
            await asyncio.sleep(EVERY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - relays do not come together

    async def forget(self) -> int:
        """Delete what is old now. Returns how many waits it were."""
        now, total = self._store.clock(), 0
        self._steps.note(now)
        before = self._steps.ago(self._keep, now)
        while forgotten := await self._store.forget(before, limit=CHUNK):
            total += forgotten
        return total
