"""What this relay knows of those it depends on: how its last attempts to reach them ended.

Whoever reads this asks nobody: probes come every few seconds. An engine in doubt the relay asks by itself (`lookout`).
Only the kind of an error is kept, for its words may repeat what was answered; the log and the wait itself have them.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from awaithumans_core.deleted_tasks import Census

State = Literal["unknown", "ok", "failing", "missing"]


class Reach:
    """One of them."""

    def __init__(self) -> None:
        self.state: State = "unknown"
        self._since: datetime | None = None
        self._last_error: str | None = None
        self._breaks = False
        self.doubted = asyncio.Event()
        """Something failed since it was reached last; whether it is there at all is to be asked."""

    def reached(self) -> None:
        """Work is done with it: it answers, whatever it says."""
        self._breaks = False
        self.doubted.clear()
        if self.state != "ok":
            self.state, self._since, self._last_error = "ok", datetime.now(UTC), None

    def failed(self, error: BaseException) -> None:
        """It does not, or it breaks."""
        if self.state != "failing":
            self.state, self._since = "failing", datetime.now(UTC)
        self._last_error = type(error).__name__

    def breaks(self, error: BaseException) -> None:
        """All work with it fails, though it may answer when it is asked whether it is there."""
        self._breaks = True
        self.failed(error)

    def is_there(self) -> None:
        """It was asked, and answers."""
        if not self._breaks:
            self.reached()
        self.doubted.clear()

    def told(self) -> dict[str, Any]:
        """For `/readyz`."""
        told: dict[str, Any] = {"state": self.state}
        if self._since is not None:
            told["since"] = self._since.isoformat(timespec="seconds")
        if self._last_error is not None:
            told["last_error"] = self._last_error
        return told


class Health:
    """The engines of one relay, and the awaithumans server as its sweep sees it."""

    def __init__(self, engines: Iterable[str]) -> None:
        self.server = Reach()
        self.engines = {name: Reach() for name in engines}
        self.doubt: Census | None = None
        """So many tasks are missing on the server that it may be running on another database."""

    def told(self, waiting: Iterable[str]) -> dict[str, Any]:
        """Body of `/readyz`, given the engines that unfinished waits name.

        Degraded is ready: a relay that can store callbacks must get them, whoever else is away.
        """
        missing = set(waiting) - self.engines.keys()
        troubled = (
            missing
            or self.doubt is not None
            or "failing" in {self.server.state, *(reach.state for reach in self.engines.values())}
        )
        engines = {name: reach.told() for name, reach in self.engines.items()}
        doubt = {} if self.doubt is None else {"missing_tasks": _doubted(self.doubt)}
        return {
            "status": "degraded" if troubled else "ready",
            "engines": engines | {name: {"state": "missing"} for name in sorted(missing)},
            "server": self.server.told(),
            **doubt,
        }


def _doubted(census: Census) -> dict[str, Any]:
    reason = f"{census}: it may be running on another database, so no wait ends"
    return {"missing": census.missing, "read": census.read, "reason": reason}
