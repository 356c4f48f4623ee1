"""The clock of the client: one object that gives the time and waits.

Everything that waits uses such a clock, so that a test can let a month pass in a moment
(`awaithumans_core.testing.VirtualClock`).
"""

import asyncio
import time
from typing import Protocol

from awaithumans_core.errors import SettingsError


class Clock(Protocol):
    """A monotonic clock with an async and a sync way to wait. Safe to share between threads."""

    def now(self) -> float:
        """Return the seconds since an arbitrary moment in the past."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for this number of seconds."""
        ...

    def sleep_sync(self, seconds: float) -> None:
        """Wait for this number of seconds, blocking the calling thread."""
        ...


class _Real:
    """References to functions of the time module, where libraries that freeze time in tests do not replace them."""

    monotonic = staticmethod(time.monotonic)


def steady() -> float:
    """Return the seconds of the machine's monotonic clock, even while a test library has frozen `time.monotonic`.

    A frozen clock would never reach a deadline.
    """
    return _Real.monotonic()


def refuse_frozen_loop() -> None:
    """Refuse to wait in an event loop whose clock a test library has frozen, because no pause in it would end.

    Raises:
        SettingsError: the clock of the running asyncio loop does not advance.
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
"""A time in seconds that is longer than one tick of any system's monotonic clock."""


class SystemClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Return the seconds since an arbitrary moment in the past."""
        return steady()

    async def sleep(self, seconds: float) -> None:
        """Wait for this number of seconds."""
        await asyncio.sleep(seconds)

    def sleep_sync(self, seconds: float) -> None:
        """Wait for this number of seconds, blocking the calling thread."""
        time.sleep(seconds)


SYSTEM: Clock = SystemClock()
"""The default clock of clients. Tests may replace it."""
