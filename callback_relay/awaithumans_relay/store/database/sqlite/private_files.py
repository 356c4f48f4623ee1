"""SQLite files hold questions and answers in clear text, so only the relay's own user may read them.

SQLite gives the log and its index the mode of the database file. So that file is created here, with its mode, before
SQLite opens it. The mode of a file that exists is its owner's choice: it is reported and not changed.
"""

import os
import stat
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.relay")

PRIVATE = 0o600
_reported: set[str] = set()
"""Paths that this process has already reported."""


def create_private(path: str) -> None:
    """Create an empty file that only its owner may read. Do nothing if the file exists.

    Nothing is raised if it cannot be created; SQLite then reports the reason. A file that exists is not opened, because
    closing it would release the locks that SQLite holds on it in this process.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))


def database_file(target: str) -> str | None:
    """Return the path of the file that SQLite creates when it opens this target. None: a URI sets the mode."""
    if not target.startswith("file:"):
        return target
    uri = urlsplit(target)
    return None if "mode=" in uri.query else unquote(uri.path)


def report_readable(path: str) -> None:
    """Log that other users can read the file, once per process and file."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return
    if os.name != "posix" or not mode & (stat.S_IRGRP | stat.S_IROTH) or path in _reported:
        return
    _reported.add(path)
    logger.warning(
        "the database file %s has mode %04o: other users of this machine can read questions and answers in it; if they "
        "should not, stop the relay and run: chmod 600 %s*",
        path,
        mode,
        path,
    )
