"""Finds answers before the server's callback queue sends them, which is about eight a second, one after another.

It starts when callbacks arrive late, which shows that many answers were given at once. The list of ended tasks is
sorted by creation time, newest first. It is read no further back than the oldest open wait, and only while its pages
show answers. Tasks that it does not show are found on the schedule.
"""

import asyncio

from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.schedule import Costs
from awaithumans_core.schedule.costs import MAX_PAGE_TASKS
from awaithumans_core.schedule.ways import MAX_ENDED_PAGES
from awaithumans_relay.store.waits.due_for_check import Checks
from awaithumans_relay.sweep.lists import Lists
from awaithumans_relay.sweep.meter import Meter

logger = safe_logger("awaithumans.relay")

LATE_SECONDS = 5.5
"""Seconds after which a callback counts as late. The queue wakes every 5 s, so others were sent before a later one."""
AGAIN_SECONDS = 1.0
"""Seconds until the next run after one that found something, while more answers may be coming."""
FRUITLESS_BACKOFF = Backoff(first=2.0, most=15.0)
"""Pause after runs that found nothing. Callbacks may be late for a reason that no list corrects, such as a wrong clock.
"""
MAX_CLOCK_DIFFERENCE_SECONDS = 60.0
"""Seconds by which a task may be older than the wait on it: it is created first, and clocks differ."""


class EndedTasks:
    """Finds answers ahead of their callbacks, when requested.

    Args:
        checks: The open waits.
        lists: Reads the list and stores the answers that it shows.
        costs: Whether the list can be used.
        meter: The budget of the sweep.
    """

    def __init__(self, checks: Checks, lists: Lists, costs: Costs, meter: Meter) -> None:
        self._checks = checks
        self._lists = lists
        self._costs = costs
        self._meter = meter
        self._wanted = asyncio.Event()
        self._least_delay = 0.0

    def callback_received(self, outcome: Outcome) -> None:
        """Note that a callback has arrived, and request a run if it was late."""
        ended = outcome.completed_at or outcome.timed_out_at
        if ended is None:
            return
        took = self._checks.clock() - ended.timestamp()
        self._least_delay = min(self._least_delay, took)  # negative if the server's clock is ahead of ours
        if took - self._least_delay > LATE_SECONDS:
            self.run()

    def run(self) -> None:
        """Request that the list is read soon."""
        self._wanted.set()

    async def running(self) -> None:
        """Read the list whenever a run is requested, until cancelled."""
        fruitless = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                found = await self._read()
            except Exception:
                logger.exception("list of ended tasks cannot be read")
                found = 0
            if found:
                fruitless = 0
                logger.info("answers found ahead of their callbacks: %d", found)
                self.run()
            else:
                fruitless += 1
            await asyncio.sleep(FRUITLESS_BACKOFF.delay(fruitless) if fruitless else AGAIN_SECONDS)

    async def _read(self) -> int:
        """Read the list once, and return how many answers it held that were not known yet.

        One page without an answer that is new may lie between others. A second one ends the run.
        """
        oldest = await self._checks.oldest_open()
        if oldest is None or not self._costs.ended.usable(asyncio.get_running_loop().time()):
            return 0
        offset = found = fruitless = 0
        for _ in range(MAX_ENDED_PAGES):
            await self._meter.wait_for_budget()
            page = await self._lists.page(None, offset, MAX_PAGE_TASKS)
            if page is None:
                break
            offset += page.covered
            new = await self._lists.take(page.tasks)
            found += new
            reached = page.reached
            past = reached is not None and reached.timestamp() < oldest - MAX_CLOCK_DIFFERENCE_SECONDS
            fruitless = 0 if new or not page.covered else fruitless + 1
            if not page.full or past or fruitless > 1:
                break
        return found
