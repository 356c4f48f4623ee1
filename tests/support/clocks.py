"""Clocks for tests that replace the machine's clock: one runs faster, and one is set by the test."""

import asyncio
import time


class FastClock:
    """A clock that runs several times faster than real time."""

    def __init__(self, times: float = 20.0) -> None:
        self._times = times

    def now(self) -> float:
        return time.monotonic() * self._times

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._times)

    def sleep_sync(self, seconds: float) -> None:
        time.sleep(seconds / self._times)


class ManualClock:
    """A clock that shows the time it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
