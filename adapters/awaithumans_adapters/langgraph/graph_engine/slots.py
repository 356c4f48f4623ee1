"""Time-limited concurrency slots. An operation that takes longer continues, but its slot is freed for the next one."""

import asyncio
from weakref import WeakKeyDictionary


class Slots:
    """Limits how many operations start concurrently, so that the first ones finish early instead of all of them late.

    Args:
        at_once: Number of slots.
        seconds: Maximum time for which a slot is held.
    """

    def __init__(self, at_once: int, seconds: float) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._free: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def slot(self) -> "Slot":
        """Return a slot, to be acquired with `async with`.

        It is released at the end of the block or after its maximum time.
        """
        loop = asyncio.get_running_loop()
        if (free := self._free.get(loop)) is None:
            free = self._free[loop] = asyncio.Semaphore(self._at_once)
        return Slot(free, self._seconds)


class Slot:
    """One acquired slot, which is released exactly once."""

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
