"""The health of the relay's dependencies, as shown by its last attempts to reach them.

Reading it sends no requests, because probes come every few seconds. The relay checks an engine in doubt on its own
(`engine_checks`). Only the type of an error is kept, because its text may repeat an answer. The log and the wait itself
have the text.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from awaithumans_core.deleted_tasks import Census

State = Literal["unknown", "ok", "failing", "missing"]


class Reach:
    """Whether one dependency is reachable, since when, and why not."""

    def __init__(self) -> None:
        self.state: State = "unknown"
        self._since: datetime | None = None
        self._last_error: str | None = None
        self._breaks = False
        self.doubted = asyncio.Event()
        """Set when something has failed since the dependency was last reached, so that it must be checked."""

    def reached(self) -> None:
        """Note that work with the dependency succeeds: it responds, whatever the response is."""
        self._breaks = False
        self.doubted.clear()
        if self.state != "ok":
            self.state, self._since, self._last_error = "ok", datetime.now(UTC), None

    def failed(self, error: BaseException) -> None:
        """Note that the dependency does not respond, or that work with it fails."""
        if self.state != "failing":
            self.state, self._since = "failing", datetime.now(UTC)
        self._last_error = type(error).__name__

    def breaks(self, error: BaseException) -> None:
        """Note that all work with it fails, though it may respond to a check."""
        self._breaks = True
        self.failed(error)

    def is_there(self) -> None:
        """Note that it responded to a check."""
        if not self._breaks:
            self.reached()
        self.doubted.clear()

    def told(self) -> dict[str, Any]:
        """Return its entry in the body of `/readyz`."""
        told: dict[str, Any] = {"state": self.state}
        if self._since is not None:
            told["since"] = self._since.isoformat(timespec="seconds")
        if self._last_error is not None:
            told["last_error"] = self._last_error
        return told


class Health:
    """The health of one relay's engines, and of the awaithumans server as its sweep sees it."""

    def __init__(self, engines: Iterable[str]) -> None:
        self.server = Reach()
        self.engines = {name: Reach() for name in engines}
        self.doubt: Census | None = None
        """Set while so many tasks are missing on the server that it may be running on another database."""

    def told(self, waiting: Iterable[str]) -> dict[str, Any]:
        """Return the body of `/readyz`, given the engines that unfinished waits name.

        Degraded is ready: a relay that can store callbacks must receive them, whichever dependency is unreachable.
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
