"""The format of a task id. It is part of URLs that are sent with the API token, so it has no character special in URLs.

The server's ids are 32 hex digits. A text such as `..`, `a?b=1` or `%2e%2e%2fstatus` would address another endpoint of
the server.
"""

import re

MAX_TASK_ID_CHARS = 64
TASK_ID_PATTERN = f"[A-Za-z0-9_-]{{1,{MAX_TASK_ID_CHARS}}}"
"""Regular expression that a complete task id matches."""
TASK_ID_RULE = f"a task id is 1 to {MAX_TASK_ID_CHARS} letters (a-z), digits, '_' and '-'"
"""The format of a task id in words, for error messages."""

_SHAPE = re.compile(TASK_ID_PATTERN)


def is_task_id(text: str) -> bool:
    """Whether this text has the format of a task id."""
    return _SHAPE.fullmatch(text) is not None
