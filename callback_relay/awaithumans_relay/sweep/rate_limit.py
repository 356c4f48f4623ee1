"""The rate limiter of a relay's requests to the awaithumans server, which serves all its clients from one process.

It is a token bucket: checks come at an even rate after a small burst. A request for more than the remaining budget goes
into debt, and the next one waits until the debt is paid.
"""

import asyncio

CHECKS_PER_SECOND = 50.0
"""Checks per second. A check costs the server about 4 ms, so a relay uses at most a fifth of its one process."""
BURST = 25
"""Maximum number of checks at once after an idle period: half a second of the long-run rate."""


class RateLimiter:
    """One budget for everything the sweep sends.

    Args:
        per_second: Checks per second in the long run.
        burst: Maximum number of checks at once after an idle period.
    """

    def __init__(self, per_second: float = CHECKS_PER_SECOND, burst: int = BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._counted_at: float | None = None
        self._paused_until = 0.0

    async def wait_for_budget(self) -> int:
        """Wait until at least one check is allowed, and return how many are."""
        while (seconds := self._seconds_until_budget()) > 0:  # noqa: ASYNC110 - time alone brings more
            await asyncio.sleep(seconds)
        return int(self._left)

    def spend(self, checks: int) -> None:
        """Deduct checks that were made or are about to be made."""
        self._left -= checks

    async def take(self, checks: int) -> None:
        """Wait until at least one check is allowed, and deduct this many."""
        await self.wait_for_budget()
        self.spend(checks)

    def pause(self, seconds: float) -> None:
        """Send nothing for this many seconds, as the server requested (Retry-After)."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def wait_for_pause(self) -> None:
        """Wait until the pause that the server requested is over."""
        while (left := self._paused_until - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(left)

    def _seconds_until_budget(self) -> float:
        """Return the seconds until at least one check is allowed."""
        now = asyncio.get_running_loop().time()
        since = 0.0 if self._counted_at is None else now - self._counted_at
        self._counted_at = now
        self._left = min(self._left + since * self._per_second, float(self._burst))
        owed = 0.0 if self._left >= 1 else (1 - self._left) / self._per_second + 1e-6  # allows for rounding
        return max(owed, self._paused_until - now)
