"""How fast a relay may ask the awaithumans server, which answers everybody from one process.

A token bucket: looks come at an even rate after a small burst. Who asks for more at once than is left goes into debt,
and the next one waits until it is paid.
"""

import asyncio

LOOKS_PER_SECOND = 50.0
"""A look costs the server about 4 ms: a relay takes a fifth of its one process, and no more."""
BURST = 25


class Pace:
    """One budget for everything the sweep sends.

    Args:
        per_second: Looks a second in the long run.
        burst: Looks at once, after a rest.
    """

    def __init__(self, per_second: float = LOOKS_PER_SECOND, burst: int = BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._counted_at: float | None = None
        self._held_until = 0.0

    async def room(self) -> int:
        """Wait until there is a look to spend; say how many there are."""
        while (missing := self._missing()) > 0:  # noqa: ASYNC110 - time alone brings more
            await asyncio.sleep(missing)
        return int(self._left)

    def spend(self, looks: int) -> None:
        """So many were made, or are about to be."""
        self._left -= looks

    async def take(self, looks: int) -> None:
        """Wait until there is a look to spend, and spend so many."""
        await self.room()
        self.spend(looks)

    def hold(self, seconds: float) -> None:
        """The server has asked for a rest (Retry-After): nothing is sent for so long."""
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)

    async def rested(self) -> None:
        """Wait until the rest that the server has asked for is over."""
        while (left := self._held_until - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(left)

    def _missing(self) -> float:
        """Seconds until there is a whole look to spend."""
        now = asyncio.get_running_loop().time()
        since = 0.0 if self._counted_at is None else now - self._counted_at
        self._counted_at = now
        self._left = min(self._left + since * self._per_second, float(self._burst))
        owed = 0.0 if self._left >= 1 else (1 - self._left) / self._per_second + 1e-6  # what rounding may lose
        return max(owed, self._held_until - now)
