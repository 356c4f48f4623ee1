"""The loggers of this package. Foreign text in a log line cannot forge another line in any application.

The application's handlers and formatters are its own, so the text is made safe before they get it: by a filter on each
of our loggers. The filter changes only arguments and tracebacks with hidden characters; others stay as they are.
"""

import logging
from collections.abc import Mapping

from awaithumans_core.safe_text import block, one_line

INDENT = "    "
"""Before each line of a traceback, so that no line of it looks like the beginning of a log line."""


def safe_logger(name: str) -> logging.Logger:
    """The logger of this name, with the filter that makes foreign text safe."""
    logger = logging.getLogger(name)
    logger.addFilter(_SAFE_TEXT)
    return logger


def indented(text: str) -> str:
    """Return a traceback that is safe to show below a log line."""
    return "\n".join(INDENT + line for line in block(text).split("\n"))


class SafeText(logging.Filter):
    """Lets every record pass, with its text made safe."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Make message, arguments and traceback safe."""
        record.msg = _safe(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _safe(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(_safe(value) for value in record.args)
        if record.exc_info and not record.exc_text:  # formatters of the standard library take this one
            record.exc_text = indented(_FORMATTER.formatException(record.exc_info))
        return True


def _safe(value: object) -> object:
    """Return the value itself if its text is safe, otherwise its safe text."""
    if value is None or isinstance(value, int | float):
        return value
    try:
        shown = str(value)
    except Exception:  # logging reports it, as it does without this filter
        return value
    safe = one_line(shown)
    return value if safe == shown else safe


_SAFE_TEXT = SafeText()
_FORMATTER = logging.Formatter()
