"""The progress that a script shows on stderr while it waits. Nothing is written to stdout, which the script uses.

It is a live block on a terminal (`live`), one plain line on a pipe (`plain`), and nothing if progress is switched off.
Colours appear on a terminal only, and not if NO_COLOR is set.
"""

import sys
from collections.abc import Sequence
from typing import Any

from awaithumans_core.progress.base import INTERRUPTS, Progress, is_terminal
from awaithumans_core.progress.batch import BatchProgress
from awaithumans_core.progress.plain import PlainBatchProgress, PlainProgress
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

__all__ = [
    "INTERRUPTS",
    "BatchProgress",
    "PlainProgress",
    "Progress",
    "batch_progress_of",
    "is_terminal",
    "progress_of",
]


def progress_of(question: HumanTask[Any], settings: Settings, *, shown: bool) -> Progress:
    """Return the progress of one `await_human`, as a context manager that shows it."""
    if not (shown and _has_stderr()):
        return Progress(question, settings)
    if _is_live():
        from awaithumans_core.progress.live import LiveProgress

        return LiveProgress(question, settings)
    return PlainProgress(question, settings)


def batch_progress_of(asked: Sequence[HumanTask[Any]], settings: Settings, *, shown: bool) -> BatchProgress:
    """Return the progress of one `as_completed`, as a context manager that shows it."""
    if not (shown and asked and _has_stderr()):
        return BatchProgress(asked, settings)
    if _is_live():
        from awaithumans_core.progress.live import LiveBatchProgress

        return LiveBatchProgress(asked, settings)
    return PlainBatchProgress(asked, settings)


def _has_stderr() -> bool:
    return sys.stderr is not None  # pyright: ignore[reportUnnecessaryComparison]  # as under pythonw


def _is_live() -> bool:
    """Whether stderr is a terminal that can redraw a line. Rich is imported on a terminal only."""
    if not is_terminal(sys.stderr):
        return False
    from awaithumans_core.progress.block import can_be_live

    return can_be_live()
