"""Clocks that are not the machine's: what waits a few seconds waits a moment on one, and never on the other."""

import asyncio
import time


class FastClock:
    """So many times as fast."""

    def __init__(self, times: float = 20.0) -> None:
        self._times = times

    def now(self) -> float:
        return time.monotonic() * self._times

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._times)

    def sleep_sync(self, seconds: float) -> None:
        time.sleep(seconds / self._times)


class ManualClock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
