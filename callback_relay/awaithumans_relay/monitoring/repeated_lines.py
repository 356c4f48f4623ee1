"""One log line for many events of a kind: the first at once, then the number of further ones.

Otherwise a caller that sends a thousand requests a second would write a thousand lines a second into the relay's log.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SECONDS = 10.0
"""Seconds between the first line about a kind of event and the line that counts the events after it."""
MAX_KINDS = 100
"""Maximum number of kinds at the same time. Further kinds are counted together."""


@dataclass(slots=True)
class _Kind:
    until: float
    more: int = 0
    latest: str = ""


class Repeats:
    """Logs events that callers can cause at will.

    Args:
        logger: The logger that receives the lines.
        seconds: How long events of a kind are counted after the first.
    """

    def __init__(self, logger: logging.Logger, seconds: float = SECONDS) -> None:
        self._logger = logger
        self._seconds = seconds
        self._kinds: dict[str, _Kind] = {}

    def warn(self, kind: str, text: str, extra: Mapping[str, Any] | None = None) -> None:
        """Log an event, or count it if one of its kind was logged less than `seconds` ago."""
        if self.first(kind, text):
            self._logger.warning("%s", text, extra=extra)

    def first(self, kind: str, text: str) -> bool:
        """Whether this event is to be logged; otherwise it is counted. Must be called in an event loop."""
        loop = asyncio.get_running_loop()
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = "other"
        if (known := self._kinds.get(kind)) is not None and loop.time() < known.until:
            known.more += 1
            known.latest = text
            return False
        if known is not None:
            self._report(kind, known)
        self._kinds[kind] = begun = _Kind(loop.time() + self._seconds)
        loop.call_later(self._seconds, self._report, kind, begun)
        return True

    def flush(self) -> None:
        """Log the events that were counted and not yet logged."""
        for kind, known in list(self._kinds.items()):
            self._report(kind, known)

    def _report(self, kind: str, known: _Kind) -> None:
        if self._kinds.get(kind) is not known:
            return
        del self._kinds[kind]
        if known.more:
            facts = {"kind": kind, "count": known.more}
            self._logger.warning(
                "%s: %d more in the last %g s; the latest: %s",
                kind,
                known.more,
                self._seconds,
                known.latest,
                extra=facts,
            )


class RepeatFilter(logging.Filter):
    """Passes one line for many of a library's lines that callers can cause at will.

    Args:
        repeats: Counts the lines. It must log to another logger.
        is_caused_by_callers: Whether this is such a line.
    """

    def __init__(self, repeats: Repeats, is_caused_by_callers: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__()
        self._repeats = repeats
        self._is_caused_by_callers = is_caused_by_callers

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        if not self._is_caused_by_callers(record):
            return True
        text = record.getMessage()
        return self._repeats.first(text, text)
