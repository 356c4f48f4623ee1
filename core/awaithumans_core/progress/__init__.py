"""The progress that a script shows on stderr while it waits. Nothing is written to stdout, which the script uses.

It is a live block on a terminal (`live`), one plain line on a pipe (`plain`), and nothing if progress is switched off.
"""

import sys
from typing import Any

from awaithumans_core.progress.base import Progress, is_terminal
from awaithumans_core.progress.plain import PlainProgress
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

__all__ = ["PlainProgress", "Progress", "is_terminal", "progress_of"]


def progress_of(question: HumanTask[Any], settings: Settings, *, shown: bool) -> "Progress":
    """Return the progress of one `await_human`, as a context manager that shows it."""
    if not shown or sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]  # as under pythonw
        return Progress(question, settings)
    if is_terminal(sys.stderr):
        from awaithumans_core.progress import live

        if live.can_be_live():
            return live.LiveProgress(question, settings)
    return PlainProgress(question, settings)
