"""Time, as the client sees it: one object to read it from and to wait on.

Everything that waits takes its seconds from here, so that a test can let a month pass in a moment
(`awaithumans_core.testing.VirtualClock`).
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only ever grow, and two ways of letting them pass. Safe to share between threads."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let this many seconds pass."""
        ...

    def sleep_sync(self, seconds: float) -> None:
        """The same, blocking the calling thread."""
        ...


class SystemClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let this many seconds pass."""
        await asyncio.sleep(seconds)

    def sleep_sync(self, seconds: float) -> None:
        """The same, blocking the calling thread."""
        time.sleep(seconds)


SYSTEM: Clock = SystemClock()
"""What clients use unless they are given another. Tests may replace it."""
