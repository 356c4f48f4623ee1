"""Log lines of the relay: structured fields beside the text, and no secrets in either.

Every line about a wait carries `task_id` and `wait_id` (the route's digest) as attributes of its record, for any
formatter of the application. Law: no secret, token, payload or answer appears in a log, at any level.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

from awaithumans_core.route import Route
from awaithumans_core.safe_logging import indented
from awaithumans_core.safe_text import json_line, one_line


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    JSON = "json"


_TEXT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message", "temporal_log"}
"""Attributes that every record has, and attributes of libraries that repeat the message. All others come from `extra`.
"""
_TASK_ID = re.compile(r"[^A-Za-z0-9._:-]")
_CALLBACK = re.compile(r"(/callbacks/)[^?\s]+")


def about(task_id: str, route: Route) -> dict[str, str]:
    """Return the `extra` of a log line about a wait."""
    return {"task_id": task_id, "wait_id": route.digest, "engine": route.engine}


def claimed(task_id: str | None) -> str | None:
    """Return an unverified task id in a form that is safe to log."""
    return _TASK_ID.sub("?", task_id.strip()[:64]) if task_id else None


class TextFormatter(logging.Formatter):
    """Formats lines for people: the text, and the id of the wait."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        """Return the line without its traceback."""
        wait_id = getattr(record, "wait_id", None)
        return one_line(super().formatMessage(record)) + (f"  wait={one_line(wait_id)}" if wait_id else "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with its traceback indented below it. So no logger's text can forge a line."""
        line, _, trace = super().format(record).partition("\n")
        return f"{line}\n{indented(dedent(trace))}" if trace else line


class JsonFormatter(logging.Formatter):
    """Formats lines for machines: one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its fields as JSON."""
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
    """Log to stderr, for a process that is only a relay."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == LogFormat.JSON else TextFormatter())
    install(level, [handler])


def file_handler(file: Path) -> logging.Handler:
    """Return a handler that writes lines for people into a new file."""
    handler = logging.FileHandler(file, mode="w", encoding="utf-8", errors="replace")
    handler.setFormatter(TextFormatter())
    return handler


def install(level: str, handlers: Sequence[logging.Handler]) -> None:
    """Log to these handlers, in a process that is only a relay."""
    logging.basicConfig(level=level.upper(), handlers=handlers)
    for chatty in ("httpx", "httpcore"):  # they would log every check of the sweep
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _MaskedTokens(logging.Filter):
    """Masks route tokens.

    Access logs and a trace of requests contain paths, and a callback's path is its route token.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, masked."""
        if isinstance(record.args, Mapping):
            return True
        record.args = tuple(_masked(value) for value in record.args or ())
        return True


def _masked(value: object) -> object:
    if isinstance(value, Mapping):  # an ASGI scope
        return _CALLBACK.sub(r"\1********", repr(cast("Mapping[str, object]", value)))
    return _CALLBACK.sub(r"\1********", value) if isinstance(value, str) else value


_MASK = _MaskedTokens()


def mask_access_log() -> None:
    """Keep route tokens out of uvicorn's access log and its trace, in any application in which the relay runs."""
    for name in ("uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).addFilter(_MASK)
