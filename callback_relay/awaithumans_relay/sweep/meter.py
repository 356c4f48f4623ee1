"""The budget of a relay's requests to the awaithumans server, which serves all its clients from one process.

All relays of a database share one budget, a row of the database. Each relay reports there what its requests took, and
learns what is left. Between two reports it counts by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from awaithumans_core.schedule import SHARE, Budget
from awaithumans_core.schedule.budget import MAX_RATIO

SETTLE_SECONDS = 0.5
"""Minimum seconds between two reports of what was spent."""
STALE_SECONDS = 5.0
"""Seconds after which this relay asks what the others have left, before it spends anything."""


class Meter:
    """Measures requests, and delays further ones while the budget is used up.

    Args:
        settle: Deducts seconds from the shared budget of this share, and returns what is left.
        share: Share of the wall time that the requests of all relays together may take.
    """

    def __init__(self, settle: Callable[[float, float], Awaitable[float]], share: float = SHARE) -> None:
        self.share = share
        self.spent = 0.0
        """Seconds of all requests of this relay."""
        self._settle = settle
        self._unsettled = 0.0
        self._settled_at = float("-inf")
        self._budget = Budget(share)
        self._reserved = 0.0
        """Expected seconds of the requests that are under way."""
        self._paused_until = 0.0
        self._in_flight = 0

    async def wait_for_budget(self) -> float:
        """Wait until a request is allowed, and return the seconds of request time that are left."""
        while True:
            now = _now()
            age = now - self._settled_at
            if age > STALE_SECONDS or (self._unsettled and age > SETTLE_SECONDS):
                spent, self._unsettled = self._unsettled, 0.0
                try:
                    left = await self._settle(self.share, spent)
                except BaseException:
                    self._unsettled += spent
                    raise
                # What was spent while the database answered is not in its figure yet.
                self._budget = Budget(self.share, left - self._unsettled, _now())
                self._settled_at = self._budget.at
            left = self._budget.refill(_now()) - self._reserved
            seconds = max(self._budget.wait(self._reserved), self._paused_until - _now())
            if seconds <= 0:
                return left
            await asyncio.sleep(min(seconds, STALE_SECONDS))

    @contextmanager
    def request(self, expected: float) -> Generator[Callable[[], float]]:
        """Measure a request. Its expected duration is reserved until it has ended.

        Yields a function that returns the duration so far, without the time for others of this relay.
        """
        began = _now()
        self._reserved += expected
        self._in_flight += 1
        at_once = self._in_flight

        def took() -> float:
            # The server is one process, so requests at the same time wait for each other.
            return (_now() - began) / max(1.0, (at_once + self._in_flight) / 2)

        try:
            yield took
        finally:
            seconds = min(took(), MAX_RATIO * expected)
            self._in_flight -= 1
            self._reserved = self._reserved - expected if self._in_flight else 0.0
            self.spent += seconds
            self._unsettled += seconds
            self._budget.spend(seconds)

    def pause(self, seconds: float) -> None:
        """Send nothing for this many seconds, as the server requested (Retry-After)."""
        self._paused_until = max(self._paused_until, _now() + seconds)

    async def wait_for_pause(self) -> None:
        """Wait until the pause that the server requested is over."""
        while (left := self._paused_until - _now()) > 0:  # noqa: ASYNC110 - time alone brings more
            await asyncio.sleep(left)


def _now() -> float:
    return asyncio.get_running_loop().time()
