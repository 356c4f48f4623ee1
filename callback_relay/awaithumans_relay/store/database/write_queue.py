"""The queue of pending writes, and the order in which the writer takes them.

Law: acknowledgements are written first. The task server sends its callbacks one after the other and allows ten seconds
for each. The relay's own bookkeeping (a lease, a completed delivery) is deferred while acknowledgements arrive. The
delay is too short to matter.
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
"""Maximum number of writes in one transaction, which limits how long the first of them waits."""
LATER_BATCH = 32
"""Maximum number of deferred writes in one transaction while acknowledgements are pending."""
LATER_SHARE = 0.2
"""Maximum share of the writer's time for deferred writes. The limit makes many of them share one transaction."""
LATER_SECONDS = 0.03
"""Minimum seconds between two transactions of deferred writes. One transaction costs as much as fifty writes in it."""
CALM_SECONDS = 0.05
"""Seconds of quiet after the last acknowledgement before deferred writes are made.

It applies when acknowledgements arrive closer together than this.
"""
PATIENCE_SECONDS = 0.25
"""Maximum seconds that deferred writes wait, however many acknowledgements arrive.

It also limits the pause that `LATER_SHARE` demands: a write may have taken seconds because the database was locked.
"""


@dataclass(slots=True, eq=False)
class Write:
    """One queued operation, and the future through which its caller receives the result."""

    operation: Callable[[Connection, Sequence[Any]], Sequence[Any]]
    """Performs a list of such writes at about the cost of one."""
    item: Any
    """The argument of the operation."""
    done: "Future[Any] | asyncio.Future[Any]"
    order: str
    loop: asyncio.AbstractEventLoop | None
    """The event loop in which the caller waits. None: the caller waits in a thread."""
    later: bool = False
    """Whether this write is deferred in favour of writes that are not."""
    since: float = field(default_factory=time.monotonic)
    tries: int = 0
    result: Any = None
    error: BaseException | None = None


class WriteQueue:
    """A queue that any thread fills and one writer thread empties.

    Args:
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._now: deque[Write] = deque()
        self._later: deque[Write] = deque()
        self._acknowledged_at = -CALM_SECONDS
        self._calm_at = 0.0
        self._yielded = True
        """Whether acknowledgements were written, or had the chance to be, since the last deferred batch."""
        self._later_began: float | None = None
        """When the current deferred batch was handed out. None: no deferred batch is being written."""
        self._later_from = 0.0
        """From when the time share of deferred writes allows another batch."""
        self._closing = False

    def put(self, *writes: Write) -> None:
        """Queue these writes for the writer thread."""
        with self._changed:
            sooner = not self._later or any(not write.later for write in writes)
            for write in writes:
                (self._later if write.later else self._now).append(write)
            if sooner:  # otherwise it sleeps until the earlier deferred writes are due; waking it is costly
                self._changed.notify()

    def close(self) -> None:
        """Make the writer stop after it has written everything that is queued."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def batch(self) -> list[Write]:
        """Wait for the next transaction and return its writes. Empty: the queue is closed and nothing is left."""
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
        """Return the time from which deferred writes may be written."""
        patient_until = self._later[0].since + PATIENCE_SECONDS
        return max(self._later_from, patient_until if self._now else min(self._calm_at, patient_until))

    def _pause(self) -> float | None:
        return max(0.0, self._next_later() - self._clock()) if self._later else None


def _taken(line: deque[Write], maximum: int) -> list[Write]:
    return [line.popleft() for _ in range(min(maximum, len(line)))]
