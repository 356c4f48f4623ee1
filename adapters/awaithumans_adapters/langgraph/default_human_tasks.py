"""The `HumanTasks` of callers in this process that are not given one."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

from awaithumans_core.human_tasks import HumanTasks

_replacement: HumanTasks | None = None


@cache
def _from_environment() -> HumanTasks:
    return HumanTasks()


def default_human_tasks() -> HumanTasks:
    """Return the replacement of a test, or else one instance per process, from the environment."""
    return _replacement or _from_environment()


def replacement() -> HumanTasks | None:
    """Return the instance with which a test has replaced the default one, if any."""
    return _replacement


@contextmanager
def replaced(human_tasks: HumanTasks) -> Generator[None]:
    """Let this instance replace the default one in the whole process during the block, for a test.

    Raises:
        RuntimeError: another one replaces it already.
    """
    global _replacement
    if _replacement is not None:
        raise RuntimeError("another HumansForLangGraph is open in this process: close it first, or use one for both")
    _replacement = human_tasks
    try:
        yield
    finally:
        _replacement = None
