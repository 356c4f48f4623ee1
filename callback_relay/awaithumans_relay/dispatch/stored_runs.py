"""The record of the runs that a delivery starts, for engines that run the caller themselves."""

from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.leases import Leases


class StoredRuns:
    """The record, stored with the wait, of the runs that a delivery starts."""

    def __init__(self, leases: Leases, wait: Wait, owner: str) -> None:
        self._leases = leases
        self._wait = wait
        self._owner = owner
        self._runs = wait.runs

    @property
    def started(self) -> bool:
        """Whether a run was started to deliver this answer, also by an earlier process."""
        return self._runs.starts > 0

    async def start(self, position: str, *, settled: bool) -> None:
        """Record a start, as `RunRecord.start` requires. Raises RuntimeError if the lease was lost."""
        runs = self._runs.after_start(position, settled=settled)
        if not await self._leases.start_run(self._wait, self._owner, runs):
            raise RuntimeError("lease lost to another relay; the run was not started")
        self._runs = runs
