"""Waits for the next change of a `TaskServerState`, from any event loop."""

import asyncio
from contextlib import suppress
from typing import Self

from awaithumans_core.clock import Clock
from awaithumans_core.testing.clock import VirtualClock
from awaithumans_core.testing.task_server_state import TaskServerState


class Changes:
    """Context manager that notices every change of the server state and every move of virtual time."""

    def __init__(self, state: TaskServerState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._changed.set)

        self._end = self._state.watch(wake)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._end()

    async def next(self, due: float | None) -> None:
        """Wait for a change, or until this time on the clock. Virtual time jumps to it once nothing else happens."""
        alarm = None if due is None else asyncio.create_task(self._wake_at(due))
        try:
            await self._changed.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        self._changed.clear()

    async def next_during_poll(self, until: float) -> None:
        """Wait for a change during a long poll. Virtual time does not jump to the end of the poll, unlike in `next`."""
        if isinstance(self._clock, VirtualClock):
            with self._clock.idle():
                await self._changed.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(until - self._clock.now()):
                    await self._changed.wait()
        self._changed.clear()

    async def _wake_at(self, due: float) -> None:
        seconds = due - self._clock.now()
        await (self._clock.alarm(seconds) if isinstance(self._clock, VirtualClock) else self._clock.sleep(seconds))
        self._changed.set()
