"""When a task that the server does not know counts as deleted. A pure rule: readings in, verdict out.

Law: a single 404 ends nothing. A server that is restored from a backup, or that runs on another database for a while,
also answers `TASK_NOT_FOUND`. A deletion is confirmed by `READINGS` such replies in a row over at least
`CONFIRM_SECONDS`. If two or more tasks, and more than half of those read in that time, are missing, the database is in
doubt, and no question ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

READINGS = 3
"""Number of consecutive replies that confirm a deletion."""
CONFIRM_SECONDS = 300.0
"""Minimum time between the first and the last of them."""
DEADLINE_SECONDS = 15 * 60.0
"""Every caller learns of a deletion within this time."""
DETECT_SECONDS = 9 * 60.0
"""Longest time between two readings of an open task. What is left of `DEADLINE_SECONDS` confirms and delivers."""


class Verdict(StrEnum):
    """What the readings say about a task that was just read as missing."""

    UNCONFIRMED = "unconfirmed"
    """There are too few readings, or they cover too short a time."""
    DOUBTED = "doubted"
    """Most tasks are missing: the server may be running on another database."""
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Rule:
    """How often, and over how many seconds, a task must be read as missing. Tests on real servers shorten the time."""

    readings: int = READINGS
    seconds: float = CONFIRM_SECONDS

    @property
    def recheck_seconds(self) -> float:
        """When a missing task is read again, so that the last reading comes just after `seconds`."""
        return self.seconds / max(1, self.readings - 1) + min(1.0, self.seconds / 100)

    def confirmed(self, missing: "Missing", now: float) -> bool:
        """Whether the task itself was missing often enough, for long enough."""
        return missing.count >= self.readings and now - missing.since >= self.seconds

    @staticmethod
    def doubted(census: "Census") -> bool:
        """Whether most tasks are missing, which puts the database in doubt."""
        return census.missing >= 2 and 2 * census.missing > census.read


RULE = Rule()


@dataclass(frozen=True, slots=True)
class Missing:
    """A row of readings in which a task was missing. Seconds on any one clock."""

    since: float
    count: int = 1

    def again(self, now: float) -> "Missing":
        """With one more reading. If the clock was set back, the row begins again."""
        return Missing(now) if self.since > now else Missing(self.since, self.count + 1)


@dataclass(frozen=True, slots=True)
class Census:
    """How many tasks were read in a span of time, and how many of them were missing."""

    missing: int
    read: int

    def __str__(self) -> str:
        return f"{self.missing} of the {self.read} tasks read lately are missing on the awaithumans server"


@dataclass(slots=True)
class Readings:
    """What one process has read of its tasks, in memory. The relay keeps the same in its table."""

    rule: Rule = RULE
    doubted: bool = False
    """Whether the last verdict that was due was `DOUBTED`."""
    _present: dict[str, float] = field(default_factory=dict[str, float])
    _missing: dict[str, Missing] = field(default_factory=dict[str, Missing])

    @property
    def missing_tasks(self) -> Mapping[str, Missing]:
        """The tasks whose last reading was a 404, by id."""
        return self._missing

    def present(self, task_id: str, now: float) -> None:
        """Record that the task was read."""
        self._present[task_id] = now
        self._missing.pop(task_id, None)

    def missing(self, task_id: str, now: float) -> Verdict:
        """Record a `TASK_NOT_FOUND` of the server, and return the verdict."""
        known = self._missing.get(task_id)
        missing = self._missing[task_id] = Missing(now) if known is None else known.again(now)
        self._present.pop(task_id, None)
        if not self.rule.confirmed(missing, now):
            return Verdict.UNCONFIRMED
        self.doubted = self.rule.doubted(self.census(missing.since))
        return Verdict.DOUBTED if self.doubted else Verdict.DELETED

    def census(self, since: float) -> Census:
        """All readings since this moment, the last of each task."""
        present = sum(read >= since for read in self._present.values())
        return Census(len(self._missing), len(self._missing) + present)
