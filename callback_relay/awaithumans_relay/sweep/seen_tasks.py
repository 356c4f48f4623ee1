"""What this relay has seen of open tasks lately: when, in which status, and how the server's times differ from its own.

It is kept in memory only. What is not known after a restart is read again.
"""

from collections import deque
from dataclasses import dataclass

from awaithumans_core.outcome import Outcome
from awaithumans_core.schedule import MAX_CHECK_SECONDS, interval, may_postpone
from awaithumans_relay.store import Wait

CREATED = "created"
"""The status of an open task that was not seen yet."""
FIRST_CALLER_CHECK_SECONDS = 5.0
"""Minimum seconds between two questions to an engine whether the caller of a wait still exists."""
MAX_LAGS = 50
"""Number of tasks by which the difference of the clocks is judged."""


@dataclass(slots=True)
class _Seen:
    at: float
    """When the task was last seen open."""
    status: str = CREATED
    created_at: float = float("-inf")
    """When the server created the task, by its own clock."""
    listed_at: float = float("-inf")
    """When a list of open tasks last showed it."""
    caller_checked_at: float = float("-inf")
    postponed_at: float | None = None
    """When the list of ended tasks last postponed the check of this task."""


class SeenTasks:
    """Open tasks by id. Times are those of the store's clock."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._lags: deque[float] = deque(maxlen=MAX_LAGS)

    def status(self, task_id: str) -> str:
        """Return the status in which the task was last seen."""
        return seen.status if (seen := self._seen.get(task_id)) is not None else CREATED

    def proved(self, task_id: str, now: float, age: float) -> bool:
        """Whether the list of ended tasks may postpone the check of a wait of this age."""
        seen = self._seen.get(task_id)
        return seen is not None and may_postpone(now - seen.listed_at, age)

    def created_after(self, task_id: str, moment: float) -> bool:
        """Whether the server created the task after this moment of its clock."""
        seen = self._seen.get(task_id)
        return seen is not None and seen.created_at > moment

    def open(self, outcome: Outcome, wait: Wait, now: float, *, listed: bool) -> None:
        """Note that the task was seen open, by a list or by a read, and when the server created it by its own clock."""
        seen = self._seen.setdefault(outcome.task_id, _Seen(now))
        seen.at, seen.status, seen.postponed_at = now, outcome.status, None
        if listed:
            seen.listed_at = now
        if outcome.created_at is not None:
            seen.created_at = outcome.created_at.timestamp()
            self._lags.append(wait.created_at - seen.created_at)

    def postponed(self, task_id: str, now: float) -> None:
        """Note that the check of this task was postponed because it is not among the ended ones."""
        if (seen := self._seen.get(task_id)) is not None:
            seen.postponed_at = now

    def ended(self, task_id: str) -> float | None:
        """Forget a task that has ended. Return when a list of ended tasks last postponed its check."""
        seen = self._seen.pop(task_id, None)
        return None if seen is None else seen.postponed_at

    @property
    def lag(self) -> float | None:
        """Seconds by which the time of a wait is ahead of the server's time of its task. None: not known yet.

        It includes the difference of the clocks. A wait that was registered late is not created late, so the minimum
        counts.
        """
        return min(self._lags, default=None)

    def caller_due(self, wait: Wait, now: float, *, read: bool) -> bool:
        """Whether the engine is to be asked for the caller of this wait. If so, it counts as asked.

        A read of the task asks every few seconds. A list, which shows many tasks, asks less often as they age.
        """
        seen = self._seen.setdefault(wait.task_id, _Seen(float("-inf")))
        age = 0.0 if read else now - wait.created_at
        pause = max(FIRST_CALLER_CHECK_SECONDS, interval(age)) * 0.9
        if 0 <= now - seen.caller_checked_at < pause:
            return False
        seen.caller_checked_at = now
        return True

    def forget_old(self, now: float) -> None:
        """Remove tasks that were last seen too long ago to be of use."""
        gone = [
            task_id
            for task_id, seen in self._seen.items()
            if not 0 <= now - max(seen.at, seen.caller_checked_at) < 3 * MAX_CHECK_SECONDS
        ]
        for task_id in gone:
            del self._seen[task_id]
