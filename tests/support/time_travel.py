"""An event loop whose timers take no time, because its clock jumps where it would wait.

It is for code that waits for time only, because replies from sockets or threads would never be waited for.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """A selector that records the wait time instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing would ever happen again")
        self.now += max(timeout, 0.0)
        return []


class TimeTravelLoop(asyncio.SelectorEventLoop):
    """An event loop whose time starts at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def travel(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, however long it takes on the loop's own clock."""
    with asyncio.Runner(loop_factory=TimeTravelLoop) as runner:
        return runner.run(story)
