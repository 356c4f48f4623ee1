"""Tracks whether one dependency of the relay is reachable, since when, and why not.

The relay has one tracker for the awaithumans server, one for the store and one for each engine. Everything that works
with a dependency reports its results to the tracker, which draws all conclusions and logs them: one line when the
dependency is unreachable, and one when it is reachable again.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from awaithumans_core.safe_logging import safe_logger

State = Literal["unknown", "ok", "failing", "missing"]

logger = safe_logger("awaithumans.relay")


def described(error: BaseException) -> str:
    """Describe an error by its type and its text."""
    return f"{type(error).__name__}: {error}"


class AvailabilityTracker:
    """Whether one dependency is reachable, since when, and why not.

    Two kinds of failure count separately. A failure of the dependency itself, such as a refused connection, shows that
    it does not respond. A failure of one subject (a delivery target, a task) may be that subject's own problem. Only
    failures of several different subjects in a row show that all work with the dependency fails.

    Args:
        name: The dependency, as it appears in log lines.
        failure_limit: Number of consecutive failures after which it counts as unresponsive.
        subject_limit: Number of different subjects that must fail in a row until all work counts as failing.
        describe: Returns the cause that an error shows, for the log.
    """

    def __init__(
        self,
        name: str,
        *,
        failure_limit: int = 1,
        subject_limit: int = 1,
        describe: Callable[[BaseException], str] = described,
    ) -> None:
        self.name = name
        self.state: State = "unknown"
        """The state by the last result. One failure is enough for `failing`."""
        self.check_due = asyncio.Event()
        """Set when something has failed since the dependency was last reached, so that it should be checked."""
        self._failure_limit = failure_limit
        self._subject_limit = subject_limit
        self._describe = describe
        self._since: datetime | None = None
        self._error: str | None = None
        self._failures = 0
        self._failed_subjects: set[str] = set()
        self._unreachable = False
        self._slow_until = 0.0

    @property
    def unresponsive(self) -> bool:
        """Whether it failed `failure_limit` times in a row."""
        return self._failures >= self._failure_limit

    @property
    def all_work_fails(self) -> bool:
        """Whether `subject_limit` different subjects failed in a row. A response to a check does not change that."""
        return len(self._failed_subjects) >= self._subject_limit

    @property
    def slow(self) -> bool:
        """Whether it recently took too long to respond, so that requests that can wait are not sent."""
        return self._slow_until > asyncio.get_running_loop().time()

    def succeeded(self) -> None:
        """Note that work with the dependency succeeded."""
        self._failed_subjects.clear()
        self.responded()

    def responded(self) -> None:
        """Note that it responded, which does not show that work with it succeeds."""
        self._failures = 0
        self.check_due.clear()
        if self.all_work_fails:
            return
        if self._unreachable:
            seconds = 0.0 if self._since is None else (datetime.now(UTC) - self._since).total_seconds()
            facts = {"dependency": self.name, "seconds": round(seconds, 1)}
            logger.warning("%s reachable again after %.0f s", self.name, seconds, extra=facts)
        self._unreachable = False
        if self.state != "ok":
            self.state, self._since, self._error = "ok", datetime.now(UTC), None

    def failed(self, error: BaseException) -> None:
        """Note that the dependency itself failed: it did not respond, or refused all requests."""
        self._failures += 1
        self._note(error, confirmed=self.unresponsive)

    def subject_failed(self, subject: str, error: BaseException) -> bool:
        """Note that work on one subject failed. Returns whether this has just shown that all work fails."""
        before = self.all_work_fails
        if not before:
            self._failed_subjects.add(subject)
        self.check_due.set()
        if self.all_work_fails:
            self._note(error, confirmed=True)
        return self.all_work_fails and not before

    def took_too_long(self, pause_seconds: float) -> None:
        """Note that it took too long to respond, so that it counts as slow for this time."""
        self._slow_until = asyncio.get_running_loop().time() + pause_seconds

    def report(self) -> dict[str, Any]:
        """Return its entry in the body of `/readyz`.

        Only the type of an error is shown, because its text may repeat an answer. The log has the text.
        """
        entry: dict[str, Any] = {"state": self.state}
        if self._since is not None:
            entry["since"] = self._since.isoformat(timespec="seconds")
        if self._error is not None:
            entry["last_error"] = self._error
        return entry

    def _note(self, error: BaseException, *, confirmed: bool) -> None:
        if self.state != "failing":
            self.state, self._since = "failing", datetime.now(UTC)
        self._error = type(error).__name__
        if confirmed and not self._unreachable:
            self._unreachable = True
            facts = {"dependency": self.name, "error": self._error}
            logger.error("%s unreachable: %s", self.name, self._describe(error), extra=facts)
