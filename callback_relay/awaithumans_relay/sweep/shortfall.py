"""Reports when the budget does not allow the promise: for how many waits, and by how much."""

import asyncio

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store.waits.due_for_check import Checks, Shortfall
from awaithumans_relay.sweep.meter import Meter
from awaithumans_relay.sweep.seen_tasks import SeenTasks

logger = safe_logger("awaithumans.relay")

ROUND_SECONDS = 10.0
"""Seconds between two readings."""
LATE_ROUNDS = 3
"""Number of readings in a row that must show late checks. A restart or a burst is over sooner."""
REPEAT_SECONDS = 900.0
"""Seconds after which a shortfall that lasts is logged again."""


class ShortfallReport:
    """Reads how late the checks are, for `/readyz`, `/metrics` and the log.

    Args:
        checks: The open waits.
        meter: The budget of the sweep.
        seen: What was seen of tasks; old entries are dropped in each round.
        observer: Receives the figures.
    """

    def __init__(self, checks: Checks, meter: Meter, seen: SeenTasks, observer: Observer) -> None:
        self._checks = checks
        self._meter = meter
        self._seen = seen
        self._observer = observer
        self._late = 0
        self._logged_at = float("-inf")

    async def running(self) -> None:
        """Read and report, until cancelled."""
        while True:
            try:
                self._report(await self._checks.shortfall())
            except Exception as error:  # the sweep itself reports it
                logger.debug("lateness of checks cannot be read: %s", error)
            self._seen.forget_old(self._checks.clock())
            await asyncio.sleep(ROUND_SECONDS)

    def _report(self, found: Shortfall) -> None:
        self._observer.metrics.shortfall(found.waits, found.seconds, self._meter.spent)
        self._late = self._late + 1 if found.waits else 0
        health, now = self._observer.health, asyncio.get_running_loop().time()
        before = health.shortfall
        health.shortfall = (found.waits, found.seconds) if self._late >= LATE_ROUNDS else None
        if health.shortfall is not None and now - self._logged_at >= REPEAT_SECONDS:
            self._logged_at = now
            logger.warning(
                "checks of open waits are late: %d waits, by up to %.0f s beyond the promise. The budget is %g %% of "
                "the time (AWAITHUMANS_RELAY_SWEEP_PERCENT)",
                found.waits,
                found.seconds,
                100 * self._meter.share,
            )
        elif health.shortfall is None and before is not None:
            logger.warning("checks of open waits are no longer late")
