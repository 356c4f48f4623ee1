"""Finds answers before the server's callback queue sends them, which is about eight a second, one after another.

It starts when callbacks arrive late or the sweep itself is behind its schedule, and finds many answers at once. The
server's list of ended tasks holds two hundred for the cost of six checks. A record in the list is the same that a check
would have read, and is stored in the same way. The list is sorted by creation time, newest first, and is read no
further back than the oldest open wait. Tasks that it does not show are found on the schedule. Reading stops when it
finds nothing.
"""

import asyncio
from collections.abc import Callable, Sequence

from awaithumans_core import flow
from awaithumans_core.client import TaskClient
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import Patience
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.due_for_check import Checks
from awaithumans_relay.sweep.found_answers import FoundAnswers
from awaithumans_relay.sweep.rate_limit import RateLimiter

logger = safe_logger("awaithumans.relay")

LATE_SECONDS = 5.5
"""Seconds after which a callback counts as late. The queue wakes every 5 s, so others were sent before a later one."""
MAX_PAGES = 25
"""Maximum number of pages read in one run: 4,500 tasks at least, for the cost of three seconds of checks."""
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
        client: Reads the list. It should give up at once (`patience=0`).
        rate_limiter: The rate limiter of the sweep. Requests for the list count as checks.
        answers: Stores the answers that are found.
        on_answer: Called after answers were stored.
    """

    def __init__(
        self,
        checks: Checks,
        client: TaskClient,
        rate_limiter: RateLimiter,
        answers: FoundAnswers,
        *,
        on_answer: Callable[[], None],
    ) -> None:
        self._checks = checks
        self._client = client
        self._rate_limiter = rate_limiter
        self._answers = answers
        self._on_answer = on_answer
        self._wanted = asyncio.Event()
        self._least_delay = 0.0
        self._page = flow.FIRST_PAGE

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
            except AwaitHumansError as error:  # the checks log this as well, at a higher level
                logger.info("list of ended tasks cannot be read: %s", error)
                found = 0
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
        """Read the list once, and return how many answers it held that were not known yet."""
        oldest = await self._checks.oldest_open()
        if oldest is None:
            return 0
        offset = found = 0
        for _ in range(MAX_PAGES):
            await self._rate_limiter.take(flow.READS_A_PAGE)
            size = self._page
            page = await self._client.run(flow.ended_page(offset, size, Patience(0)))
            offset, self._page = offset + page.covered, page.next_size
            found += await self._take(page.ended)
            reached = page.reached
            if not page.full or (reached is not None and reached.timestamp() < oldest - MAX_CLOCK_DIFFERENCE_SECONDS):
                break
        return found

    async def _take(self, ended: Sequence[Outcome]) -> int:
        """Store the answers that have waits.

        A completion without its response is left to a check of the task itself.
        """
        asking: dict[tuple[str, str | None], list[Wait]] = {}
        for wait in await self._checks.unanswered([outcome.task_id for outcome in ended]):
            asking.setdefault((wait.task_id, wait.route.idempotency_key), []).append(wait)
        news = [
            (outcome, asking[which])
            for outcome in ended
            if outcome.answered and (which := (outcome.task_id, outcome.idempotency_key)) in asking
        ]
        found = await asyncio.gather(*(self._answers.record(outcome, waits, ahead=True) for outcome, waits in news))
        if news:
            self._on_answer()
        return sum(found)
