"""A few at a time, each for a moment: what takes longer goes on, and keeps nobody from a turn."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from weakref import WeakKeyDictionary


class Turns:
    """Who does many things at once does each of them late; in turns, the first is done early.

    Args:
        at_once: How many have a turn.
        seconds: How long a turn lasts at most.
    """

    def __init__(self, at_once: int, seconds: float) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._free: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn. It is over when the block is, or its time."""
        loop = asyncio.get_running_loop()
        free = self._free.setdefault(loop, asyncio.Semaphore(self._at_once))
        await free.acquire()
        with ExitStack() as ending:
            ending.callback(free.release)
            ending.callback(loop.call_later(self._seconds, ending.close).cancel)
            yield
