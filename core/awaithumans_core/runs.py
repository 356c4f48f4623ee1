"""Counts the runs that a delivery starts, before they start, so that a run that may have acted is not repeated.

Law: a run whose result could not be stored is started at most once more from the same position. After that the wait is
parked, because each further run could act on the same answer again. Only an operator's redrive starts another one.

An engine that runs the caller itself (an in-process LangGraph graph) reports each start to a `RunRecord`. The relay
keeps the record with the wait, so the count survives its process.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from awaithumans_core.engine import TargetGone
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

MAX_STARTS = 2
"""Starts from one position: the first, and one more after a run whose result could not be stored."""


@dataclass(frozen=True, slots=True)
class StartedRuns:
    """The number of runs that were started to deliver one answer."""

    state_fingerprint: str | None = None
    """Fingerprint of the caller's stored state where the last run started. None: no run was started."""
    starts: int = 0
    """How often the work that follows this state may have been done."""

    def after_start(self, position: str, *, settled: bool) -> "StartedRuns":
        """Return the count with one more start.

        Args:
            position: Fingerprint of the caller's stored state now. If the last start had another one, that run
                made progress and ended here, so what follows may have been done once already.
            settled: The caller's stored state shows how its last run ended (a recorded failure, a new question), or an
                operator redrives. Then nothing that was done is unknown, and counting begins again.

        Raises:
            TargetGone: the limit is reached; the wait is to be parked.
        """
        if settled or self.state_fingerprint is None:
            return StartedRuns(position, 1)
        starts = self.starts + 1 if position == self.state_fingerprint else 2
        if starts > MAX_STARTS:
            raise TargetGone(
                f"the caller was run {self.starts} times from the same position and no result was stored, so it may "
                "have acted on this answer. Find out what it did, repair its storage or its code, then redrive to run "
                "it once more"
            )
        return StartedRuns(position, starts)


NO_RUNS = StartedRuns()
"""The count before the first run is started."""


class RunRecord(Protocol):
    """Records the starts of one delivery."""

    @property
    def started(self) -> bool:
        """Whether a run was started to deliver this answer."""
        ...

    async def start(self, position: str, *, settled: bool) -> None:
        """Record that a run is about to start, and return once that is stored.

        `settled` means that the caller's stored state shows how its last run ended, or that an operator redrives. Then
        counting begins again. The arguments and the error at the limit are those of `StartedRuns.after_start`. After
        any other error nothing was recorded, so no run may start.
        """
        ...


class RunsInMemory:
    """The record of an engine that is used without a relay: it ends with the process."""

    def __init__(self) -> None:
        self._runs = NO_RUNS

    @property
    def started(self) -> bool:
        """Whether a run was started to deliver this answer."""
        return self._runs.starts > 0

    async def start(self, position: str, *, settled: bool) -> None:
        """Record a start as `RunRecord.start` requires; `settled` has the meaning it has there."""
        self._runs = self._runs.after_start(position, settled=settled)


@runtime_checkable
class RecordsRuns(Protocol):
    """Engine that runs the caller itself, instead of waking a process that runs it.

    The relay calls `deliver_recorded` in place of `deliver` and `redrive`.
    """

    async def deliver_recorded(self, route: Route, outcome: Outcome, runs: RunRecord, *, redriven: bool) -> None:
        """Deliver as `Engine.deliver`, or as `Redrives.redrive` if `redriven`, and record each run before it starts."""
        ...
