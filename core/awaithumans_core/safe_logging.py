"""The loggers of this package. Foreign text in a log line cannot forge another line in any application.

The application's handlers and formatters are its own, so the text is made safe before they get it: by a filter on each
of our loggers. The filter changes only arguments and tracebacks with hidden characters; others stay as they are.

If the application has configured no logging, warnings go to stderr. The logger `awaithumans` is the exception: scripts
use it, and they report what happens themselves.
"""

import logging
from collections.abc import Mapping

from awaithumans_core.safe_text import block, one_line

INDENT = "    "
"""Before each line of a traceback, so that no line of it looks like the beginning of a log line."""


OF_SCRIPTS = "awaithumans"
"""The logger whose lines only an application sees that has configured logging."""


def safe_logger(name: str) -> logging.Logger:
    """The logger of this name, with the filter that makes foreign text safe."""
    logger = logging.getLogger(name)
    logger.addFilter(_SAFE_TEXT)
    if name == OF_SCRIPTS:
        logger.addHandler(_SILENT)
    elif name.rpartition(".")[0] == OF_SCRIPTS:  # loggers below these pass their lines up to them
        logger.addHandler(_UNCONFIGURED)
    return logger


def show_if_unconfigured(message: str, *args: object) -> None:
    """Write a warning of the logger `OF_SCRIPTS` to stderr if the application has configured no logging."""
    record = logging.makeLogRecord({"name": OF_SCRIPTS, "levelno": logging.WARNING, "msg": message, "args": args})
    _SAFE_TEXT.filter(record)
    _UNCONFIGURED.handle(record)


def log_once(logger: logging.Logger, level: int, line: str) -> None:
    """Log a line, unless this process has logged the same line before."""
    if line not in _logged:
        _logged.add(line)
        logger.log(level, line)


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


class Unconfigured(logging.Handler):
    """Writes warnings to stderr as long as the application has configured no logging.

    Python itself does so only for loggers without any handler, and uvicorn configures its own loggers alone.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record unless a handler of the application receives it."""
        if logging.lastResort is not None and not _is_configured(logging.getLogger(record.name)):
            logging.lastResort.handle(record)


def _is_configured(logger: logging.Logger | None) -> bool:
    """Whether a handler of the application receives what this logger logs."""
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler | Unconfigured) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


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
_SILENT = logging.NullHandler()
_UNCONFIGURED = Unconfigured()
_FORMATTER = logging.Formatter()
_logged: set[str] = set()
"""Lines that `log_once` has logged."""
