"""Progress as plain lines, for a log or a pipe."""

import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from awaithumans_core.flow import Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress.base import Progress, time_left
from awaithumans_core.progress.batch import BatchProgress, OpenQuestion, questions, trouble_of
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import HumanTask


class PlainProgress(Progress):
    """Writes one line for a log once the question is asked, and one for each kind of trouble."""

    _told = _away = _missing = False

    def asks(self, question: HumanTask[Any]) -> None:
        """Record the question that is asked next. It gets a line of its own."""
        super().asks(question)
        self._told = False

    def tell(self, outcome: Outcome) -> None:
        """Write the line at the first status of the task."""
        super().tell(outcome)
        if not self._told:
            self._told = True
            again = f"; pick up again with {self._key}" if self._key else ""
            self.say(
                f"{self.asked.task} - waiting for a person at {self.review_url(outcome)} "
                f"(open {time_left(self._until, datetime.now())}{again})"
            )

    def trouble(self, pause: Pause) -> None:
        """Write another line at the first trouble of each kind."""
        if pause.missing and not self._missing:
            self._missing = True
            self.say(f"{self.asked.task} - {pause.reason}")
        elif not pause.missing and not self._away:
            self._away = True
            advice = f". {pause.advice}" if pause.advice else ""
            self.say(
                f"{self.asked.task} - the server does not answer ({pause.reason}); trying on until the deadline{advice}"
            )

    def say(self, words: str) -> None:
        """Write one line immediately."""
        write_line(words)


class PlainBatchProgress(BatchProgress):
    """Writes one line for a log once the first question of a batch is asked, and one if the batch is stopped.

    The first trouble with the server gets a line too.
    """

    _told = _away = False

    def trouble(self, pause: Pause) -> None:
        """Write a line at the first trouble."""
        super().trouble(pause)
        if not self._away and not pause.missing:
            self._away = True
            advice = f". {pause.advice}" if pause.advice else ""
            self.say(f"{questions(self.total)} - {trouble_of(pause)}; trying on{advice}")

    def opened(self, position: int, question: HumanTask[Any], created: Outcome) -> OpenQuestion:
        """Write the line with the first open question."""
        opened = super().opened(position, question, created)
        if not self._told:
            self._told = True
            self.say(
                f"{questions(self.total)} - waiting for people, first at {self.review_url(opened)} "
                f"(open {time_left(opened.until, datetime.now())})"
            )
        return opened

    def say(self, words: str) -> None:
        """Write one line immediately."""
        write_line(words)


def write_line(words: str) -> None:
    """Write one line to stderr. An error of stderr does not end the wait."""
    with suppress(Exception):
        sys.stderr.write(f"awaithumans: {one_line(words)}\n")
        sys.stderr.flush()
