"""The shape of a task id. It is part of URLs that are sent with the API token, so no character has a meaning there.

The server's ids are 32 hex digits. Any other text (`..`, `a?b=1`, `%2e%2e%2fstatus`) would name
another endpoint of the server.
"""

import re

MAX_TASK_ID_CHARS = 64
TASK_ID_PATTERN = f"[A-Za-z0-9_-]{{1,{MAX_TASK_ID_CHARS}}}"
"""A task id, all of it."""
TASK_ID_RULE = f"a task id is 1 to {MAX_TASK_ID_CHARS} letters (a-z), digits, '_' and '-'"
"""For error messages."""

_SHAPE = re.compile(TASK_ID_PATTERN)


def is_task_id(text: str) -> bool:
    """Whether this can be the id of a task."""
    return _SHAPE.fullmatch(text) is not None
