"""The health of the relay's dependencies, as the results of its last requests show it.

Reading it sends no requests, because probes come every few seconds. An engine that may be unreachable is checked by the
relay itself (`engine_checks`).
"""

from collections.abc import Iterable
from typing import Any

from awaithumans_core.deleted_tasks import Census
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.services import ENGINES
from awaithumans_relay.availability import server_causes
from awaithumans_relay.availability.tracker import AvailabilityTracker, described

FAILED_TARGETS = 5
"""Number of different targets of an engine that must fail in a row.

If one target cannot be woken, the engine may still work.
"""
FAILED_CHECKS = 4
"""Number of consecutive failed checks of tasks, or of different tasks with odd replies, that concern the server."""


class Health:
    """The trackers of one relay's dependencies: its engines, the awaithumans server and the store.

    The tracker of the store shows whether waits can be read. Whether a callback can be stored at this moment is shown
    by `Store.readiness`.

    Args:
        engines: Names of the relay's engines.
    """

    def __init__(self, engines: Iterable[str]) -> None:
        self.server = AvailabilityTracker(
            "awaithumans server",
            failure_limit=FAILED_CHECKS,
            subject_limit=FAILED_CHECKS,
            describe=server_causes.describe,
        )
        self.store = AvailabilityTracker("store", describe=_store_error)
        self.engines = {name: _engine_tracker(name) for name in engines}
        self._unlisted: dict[str, AvailabilityTracker] = {}
        self.missing_tasks: Census | None = None
        """Set while most tasks are missing on the server, which may be running on another database."""
        self.shortfall: tuple[int, float] | None = None
        """Set while checks are later than promised: the number of waits, and by how many seconds at most."""

    def engine(self, name: str) -> AvailabilityTracker:
        """Return the tracker of an engine. An engine that is not one of the relay's does not appear in `/readyz`."""
        if (tracker := self.engines.get(name) or self._unlisted.get(name)) is None:
            tracker = self._unlisted[name] = _engine_tracker(name)
        return tracker

    def report(self, engines_with_waits: Iterable[str]) -> dict[str, Any]:
        """Return the body of `/readyz`, given the names of the engines of unfinished waits.

        Degraded is ready: a relay that can store callbacks must receive them, whichever dependency is unreachable.
        """
        missing = set(engines_with_waits) - self.engines.keys()
        degraded = (
            missing
            or self.missing_tasks is not None
            or "failing" in {self.server.state, *(engine.state for engine in self.engines.values())}
        )
        engines = {name: engine.report() for name, engine in self.engines.items()}
        tasks = {} if self.missing_tasks is None else {"missing_tasks": _missing_tasks(self.missing_tasks)}
        return {
            "status": "degraded" if degraded else "ready",
            "engines": engines | {name: {"state": "missing"} for name in sorted(missing)},
            "server": self.server.report(),
            **tasks,
            **({} if self.shortfall is None else {"sweep": _late(*self.shortfall)}),
        }


def _engine_tracker(name: str) -> AvailabilityTracker:
    def describe(error: BaseException) -> str:
        service = None if isinstance(error, AwaitHumansError) else ENGINES.get(name)  # ours say what to do themselves
        return described(error) if service is None else f"{described(error).removesuffix('.')}. {service.if_silent}"

    return AvailabilityTracker(f"engine {name}", subject_limit=FAILED_TARGETS, describe=describe)


def _missing_tasks(census: Census) -> dict[str, Any]:
    reason = f"{census}: the awaithumans server may be using another database, so these waits are kept"
    return {"missing": census.missing, "read": census.read, "reason": reason}


def _late(waits: int, seconds: float) -> dict[str, Any]:
    reason = "the budget of the sweep does not allow to check all open waits in time"
    return {"late_waits": waits, "late_seconds": round(seconds, 1), "reason": reason}


def _store_error(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {original}. Its waits are read again at growing intervals"
