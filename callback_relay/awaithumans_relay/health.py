"""What this relay knows of those it depends on: how its last attempts to reach them ended.

Nobody is asked for it: probes come every few seconds, and what a relay's own work tells is newer. Only the kind of an
error is kept, because its words may repeat what was answered; the log and the wait itself have them.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["unknown", "ok", "failing", "missing"]


class Reach:
    """One of them."""

    def __init__(self) -> None:
        self.state: State = "unknown"
        self._since: datetime | None = None
        self._last_error: str | None = None

    def reached(self) -> None:
        """It answers, whatever it says."""
        if self.state != "ok":
            self.state, self._since, self._last_error = "ok", datetime.now(UTC), None

    def failed(self, error: BaseException) -> None:
        """It does not, or it breaks."""
        if self.state != "failing":
            self.state, self._since = "failing", datetime.now(UTC)
        self._last_error = type(error).__name__

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

    def told(self, waiting: Iterable[str]) -> dict[str, Any]:
        """Body of `/readyz`, given the engines that unfinished waits name.

        Degraded is ready: a relay that can store callbacks must get them, whoever else is away.
        """
        missing = set(waiting) - self.engines.keys()
        troubled = missing or "failing" in {self.server.state, *(reach.state for reach in self.engines.values())}
        engines = {name: reach.told() for name, reach in self.engines.items()}
        return {
            "status": "degraded" if troubled else "ready",
            "engines": engines | {name: {"state": "missing"} for name in sorted(missing)},
            "server": self.server.told(),
        }
