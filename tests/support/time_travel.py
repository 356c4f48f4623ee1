"""An event loop whose timers take no time: where it would wait, its clock jumps.

For code that waits for nothing but time: a reply from a socket or from a thread would never be waited for.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Instead of waiting, notes how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing would ever happen again")
        self.now += max(timeout, 0.0)
        return []


class TimeTravelLoop(asyncio.SelectorEventLoop):
    """Begins at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def travel(story: Coroutine[Any, Any, T]) -> T:
    """Run it to its end, however long it takes on its own clock."""
    with asyncio.Runner(loop_factory=TimeTravelLoop) as runner:
        return runner.run(story)
