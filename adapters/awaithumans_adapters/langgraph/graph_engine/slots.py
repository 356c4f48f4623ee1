"""A few at a time, each for a moment: what takes longer goes on, and keeps nobody from a turn."""

import asyncio
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

    def turn(self) -> "Turn":
        """One turn, to wait for with `async with`. It is over when the block is, or its time."""
        free = self._free.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._at_once))
        return Turn(free, self._seconds)


class Turn:
    """Taken from those that are free, given back once."""

    __slots__ = ("_ending", "_free", "_seconds")

    def __init__(self, free: asyncio.Semaphore, seconds: float) -> None:
        self._free, self._seconds = free, seconds
        self._ending: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self._ending = asyncio.get_running_loop().call_later(self._seconds, self._end)

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
            self._free.release()
