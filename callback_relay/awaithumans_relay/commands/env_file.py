"""The file `.env` of the working directory, which the command line reads.

Its values are put into the environment of the process, unless a variable has a value already. So every command, the
options that have a variable, Temporal's own configuration and the graphs of `--graph` see the same settings.
"""

import os
import stat
from pathlib import Path

from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.relay")

ENV_FILE = ".env"

_PREFIXES = ("AWAITHUMANS_", "TEMPORAL_")
_NAMES = ("LANGGRAPH_API_KEY", "LANGSMITH_API_KEY")
"""The variables that `awaithumans-relay serve --help` lists.

Others are not taken: the file often holds the settings of an application, and PATH or PYTHONPATH of a file in the
working directory must not reach this process.
"""


def read_env_file() -> Path | None:
    """Put the settings of `.env` into the environment, and return its path. None: there is no usable file.

    A variable that is empty counts as unset.
    """
    path = Path.cwd() / ENV_FILE
    if not os.path.lexists(path):
        return None
    if (problem := _problem(path)) is not None:
        logger.warning("%s is not used: %s", path, problem)
        return None
    from dotenv import dotenv_values  # only if there is a file

    for name, value in dotenv_values(path, encoding="utf-8").items():
        wanted = name.startswith(_PREFIXES) or name in _NAMES
        if wanted and value and not os.environ.get(name, "").strip():
            os.environ[name] = value
    return path


def _problem(path: Path) -> str | None:
    """Return why a file is not used: another user may have written it, or it is not text. None: it is used."""
    try:
        link, found = path.lstat(), path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "it is not a file"
        if hasattr(os, "geteuid") and not {link.st_uid, found.st_uid} <= {os.geteuid(), 0}:
            return "it belongs to another user"
        if found.st_mode & stat.S_IWOTH:
            return "every user may write to it"
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "it is not text in UTF-8"
    except OSError as unreadable:
        return unreadable.strerror or str(unreadable)
    return None
