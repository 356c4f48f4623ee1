"""What waits to be written, and in which order.

Law: an acknowledgement goes first. The task server sends its callbacks one after the other and gives each ten seconds;
what the relay writes for itself, a lease or that something was delivered, gives way while acknowledgements come in, for
a moment that nobody notices.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

BATCH = 128
"""Writes in one transaction at most, so that the first of them does not wait for long."""
LATER_BATCH = 32
"""The same of those that give way, when acknowledgements wait behind them."""
LATER_SHARE = 0.2
"""Of the writer's time, at most, for those that give way, so that many of them are written together."""
LATER_SECONDS = 0.03
"""The least between two transactions of those that give way: each of them costs what fifty writes in it do."""
CALM_SECONDS = 0.05
"""So long after the last acknowledgement they are made, when acknowledgements come in closer together than that."""
PATIENCE_SECONDS = 0.25
"""And after so long between acknowledgements, however many of these come in. A share is not waited for longer, either:
a write may have taken seconds because the database was locked.
"""


@dataclass(slots=True, eq=False)
class Write:
    """One operation, and whoever waits for it."""

    operation: Callable[[Connection, Sequence[Any]], Sequence[Any]]
    """Makes several such writes as easily as one."""
    item: Any
    """What it is to do."""
    done: "Future[Any] | asyncio.Future[Any]"
    order: str
    loop: asyncio.AbstractEventLoop | None
    """Where somebody waits for it; None: a thread does."""
    later: bool = False
    """Whether it gives way to those that are not."""
    since: float = field(default_factory=time.monotonic)
    tries: int = 0
    result: Any = None
    error: BaseException | None = None


class WriteQueue:
    """Filled by any thread, emptied by one.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._now: deque[Write] = deque()
        self._later: deque[Write] = deque()
        self._acknowledged_at = -CALM_SECONDS
        self._calm_at = 0.0
        self._yielded = True
        """Whether acknowledgements have had their turn since the last of those that give way."""
        self._later_began: float | None = None
        """When those that give way were given out, if nothing was given out since."""
        self._later_from = 0.0
        """When those that give way have their share again."""
        self._closing = False

    def put(self, *writes: Write) -> None:
        """Have these written."""
        with self._changed:
            sooner = not self._later or any(not write.later for write in writes)
            for write in writes:
                (self._later if write.later else self._now).append(write)
            if sooner:  # else the writer sleeps until it is time for those before: woken for nothing it costs others
                self._changed.notify()

    def close(self) -> None:
        """Have the writer end, once it has written everything."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def batch(self) -> list[Write]:
        """Wait for the next transaction. Empty: the queue was closed, and there is nothing left."""
        with self._changed:
            if self._later_began is not None:
                ended = self._clock()
                took = ended - self._later_began
                self._later_from = ended + min(max(took * (1 / LATER_SHARE - 1), LATER_SECONDS), PATIENCE_SECONDS)
                self._later_began = None
            while True:
                if self._turn_of_later():
                    self._yielded, self._later_began = False, self._clock()
                    busy = self._now or self._later_began < self._calm_at
                    return _taken(self._later, LATER_BATCH if busy else BATCH)
                if self._now:
                    self._yielded = True
                    self._note_acknowledgements(len(self._now))
                    return _taken(self._now, BATCH)
                if self._closing:
                    self._closing = False
                    return []
                self._changed.wait(self._pause())

    def _note_acknowledgements(self, count: int) -> None:
        before, self._acknowledged_at = self._acknowledged_at, self._clock()
        more_to_come = count > 1 or self._acknowledged_at < before + CALM_SECONDS
        self._calm_at = self._acknowledged_at + (CALM_SECONDS if more_to_come else 0.0)

    def _turn_of_later(self) -> bool:
        if not self._later:
            return False
        if self._now:
            return self._yielded and self._clock() >= self._next_later()
        return self._closing or self._clock() >= self._next_later()

    def _next_later(self) -> float:
        """From when on those that give way are written."""
        patient_until = self._later[0].since + PATIENCE_SECONDS
        return max(self._later_from, patient_until if self._now else min(self._calm_at, patient_until))

    def _pause(self) -> float | None:
        return max(0.0, self._next_later() - self._clock()) if self._later else None


def _taken(line: deque[Write], most: int) -> list[Write]:
    return [line.popleft() for _ in range(min(most, len(line)))]
