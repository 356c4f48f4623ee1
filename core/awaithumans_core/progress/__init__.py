"""What a person sees on stderr while a script waits. Nothing is written to stdout, which belongs to the script.

On a terminal a live block (`live`), on a pipe one plain line (`plain`), and nothing if progress is switched off.
"""

import sys
from typing import Any

from awaithumans_core.progress.base import Progress, is_terminal
from awaithumans_core.progress.plain import PlainProgress
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

__all__ = ["PlainProgress", "Progress", "is_terminal", "progress_of"]


def progress_of(question: HumanTask[Any], settings: Settings, *, shown: bool) -> "Progress":
    """The progress of one `await_human`: a context in which it is shown."""
    if not shown or sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]  # as under pythonw
        return Progress(question, settings)
    if is_terminal(sys.stderr):
        from awaithumans_core.progress import live

        if live.can_be_live():
            return live.LiveProgress(question, settings)
    return PlainProgress(question, settings)
