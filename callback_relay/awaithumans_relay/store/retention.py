"""Waits are deleted some time after they have ended, so that the table does not grow for ever.

A delivered wait is deleted `RETENTION` after its delivery. A parked wait without an answer is deleted `RETENTION` after
the deadline of its task. An open wait is never deleted: the sweep parks it once the server shows that its task is still
open `RETENTION` after its deadline. A wait with an undelivered answer is never deleted either. A callback for a deleted
wait creates a new one, and delivering that again is harmless.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store.defaults import RETENTION
from awaithumans_relay.store.waits.upkeep import Upkeep

logger = safe_logger("awaithumans.relay")

EVERY_SECONDS = 3600.0
CHUNK = 1000
"""Number of waits deleted in one transaction. The limit keeps callbacks from waiting behind a month's waits."""


class Retention:
    """Deletes waits that ended longer ago than `keep`."""

    def __init__(self, upkeep: Upkeep, keep: timedelta = RETENTION) -> None:
        self._upkeep = upkeep
        self._keep = keep.total_seconds()
        self._steps = ClockSteps(upkeep.steady)
        self._steps.note(upkeep.clock())

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Delete old waits about once an hour while the block runs."""
        async with beside(retention=self._run()):
            yield

    async def _run(self) -> None:
        while True:
            try:
                if forgotten := await self.forget():
                    logger.info("deleted %d waits that ended %.0f days ago", forgotten, self._keep / 86400)
            except Exception:
                logger.exception("could not delete old waits; trying again in an hour")
            await asyncio.sleep(EVERY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - relays do not come together

    def before(self) -> float:
        """Return the epoch seconds before which an ended wait is old enough to be deleted."""
        now = self._upkeep.clock()
        self._steps.note(now)
        return self._steps.ago(self._keep, now)

    async def forget(self) -> int:
        """Delete all waits that are old now. Returns how many were deleted."""
        before, total = self.before(), 0
        while forgotten := await self._upkeep.delete_ended(before, limit=CHUNK):
            total += forgotten
        return total
