"""Log lines of the relay: fields beside the words, and nothing secret in either.

Every line about a wait carries `task_id` and `wait_id` (the route's digest) as attributes of its record, for whatever
formatter the application has. Law: no secret, token, payload or answer stands in a log, at any level.
"""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from textwrap import dedent
from typing import Any, cast

from awaithumans_core.route import Route
from awaithumans_core.safe_logging import indented
from awaithumans_core.safe_text import json_line, one_line


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


_TEXT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message", "temporal_log"}
"""Attributes every record has, and what libraries add that stands in the message, too; others were given as `extra`."""
_TASK_ID = re.compile(r"[^A-Za-z0-9._:-]")
_CALLBACK = re.compile(r"(/callbacks/)[^?\s]+")


def about(task_id: str, route: Route) -> dict[str, str]:
    """The `extra` of a line about a wait."""
    return {"task_id": task_id, "wait_id": route.digest, "engine": route.engine}


def claimed(task_id: str | None) -> str | None:
    """A task id that nobody has vouched for, fit for a log."""
    return _TASK_ID.sub("?", task_id.strip()[:64]) if task_id else None


class TextFormatter(logging.Formatter):
    """For people: the words, and which wait."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        """The line without its traceback."""
        wait_id = getattr(record, "wait_id", None)
        return one_line(super().formatMessage(record)) + (f"  wait={one_line(wait_id)}" if wait_id else "")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and its traceback indented below it: whatever logger it comes from, it cannot forge a line."""
        line, _, trace = super().format(record).partition("\n")
        return f"{line}\n{indented(dedent(trace))}" if trace else line


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its fields."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_line(line)


def configure(level: str, log_format: LogFormat) -> None:
    """Log to stderr, as a process of one's own does."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == LogFormat.JSON else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("httpx", "httpcore"):  # they would log every look of the sweep
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _MaskedTokens(logging.Filter):
    """Access logs name paths, and so does a trace of requests; a callback's path is its route token."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass, masked."""
        if isinstance(record.args, Mapping):
            return True
        record.args = tuple(_masked(value) for value in record.args or ())
        return True


def _masked(value: object) -> object:
    if isinstance(value, Mapping):  # a scope
        return _CALLBACK.sub(r"\1********", repr(cast("Mapping[str, object]", value)))
    return _CALLBACK.sub(r"\1********", value) if isinstance(value, str) else value


_MASK = _MaskedTokens()


def mask_access_log() -> None:
    """Keep route tokens out of uvicorn's access log and its trace, in whatever application the relay runs."""
    for name in ("uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).addFilter(_MASK)
