"""Time, as the client sees it: one object to read it from and to wait on.

Everything that waits takes its seconds from here, so that a test can let a month pass in a moment
(`awaithumans_core.testing.VirtualClock`).
"""

import asyncio
import time
from typing import Protocol

from awaithumans_core.errors import SettingsError


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


class _Real:
    """Functions of the time module, kept where libraries that freeze time in tests do not replace them."""

    monotonic = staticmethod(time.monotonic)


def steady() -> float:
    """Seconds of the machine's monotonic clock, also while a test library has frozen `time.monotonic`.

    A frozen clock never comes to a deadline.
    """
    return _Real.monotonic()


def refuse_frozen_loop() -> None:
    """Refuse to wait in an event loop whose clock a test library has frozen, in which no pause would end.

    Raises:
        SettingsError: the clock of the running asyncio loop does not move.
    """
    loop = asyncio.get_running_loop()
    if time.monotonic is _Real.monotonic or not isinstance(loop, asyncio.BaseEventLoop):  # uvloop has its own clock
        return
    before = loop.time()
    time.sleep(_TICK_SECONDS)
    if loop.time() == before:
        raise SettingsError(
            "a test library has frozen time.monotonic, which is the clock of this event loop, so no pause in it would "
            "end: give freezegun's freeze_time real_asyncio=True, or use the fixture fake_humans, which has a clock of "
            "its own"
        )


_TICK_SECONDS = 0.02
"""Longer than one tick of any system's monotonic clock."""


class SystemClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        return steady()

    async def sleep(self, seconds: float) -> None:
        """Let this many seconds pass."""
        await asyncio.sleep(seconds)

    def sleep_sync(self, seconds: float) -> None:
        """The same, blocking the calling thread."""
        time.sleep(seconds)


SYSTEM: Clock = SystemClock()
"""What clients use unless they are given another. Tests may replace it."""
