"""What a person sees on stderr while a script waits; nothing is ever written to stdout, which is the script's own.

On a terminal a live block (`terminal.py`), on a pipe one plain line, and nothing when told so.
"""

import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from awaithumans_core.flow import POLL_SECONDS, Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_core.status import TaskStatus
from awaithumans_core.task import HumanTask


def progress_of(question: HumanTask[Any], settings: Settings, *, shown: bool) -> "Progress":
    """The progress of one `await_human`: a context in which it is shown."""
    if not shown or sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]  # as under pythonw
        return Progress(question, settings)
    if is_terminal(sys.stderr):
        from awaithumans_core import terminal

        if terminal.can_be_live():
            return terminal.LiveProgress(question, settings)
    return PlainProgress(question, settings)


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is a terminal.

    A program may have closed its stream, or replaced it by None or by an object of its own without `isatty`.
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except Exception:  # whatever is there instead of a stream: it is not a terminal
        return False


class Progress:
    """Says nothing, and is told everything."""

    poll_seconds = POLL_SECONDS
    """How long the polls may be held."""

    def __init__(self, question: HumanTask[Any], settings: Settings) -> None:
        self.asked = question
        """What is being asked just now: the question, or the same one asked again."""
        self._settings = settings
        self._known = False
        """Whether the server is known to have the question."""
        self._again = f"idempotency_key={question.idempotency_key!r}"

    def asks(self, question: HumanTask[Any]) -> None:
        """This is asked next."""
        self.asked = question

    def tell(self, outcome: Outcome) -> None:
        """This is how the task stands now."""
        self._known = True

    def trouble(self, pause: Pause) -> None:
        """There was no usable reply, or the server does not know the task; it is tried again."""

    def ends(self, outcome: Outcome) -> Outcome:
        """This is how it ended."""
        return outcome

    def say(self, words: str) -> None:
        """Something to know that outlasts the wait."""

    def left_open(self) -> None:
        """The wait was stopped, the question was not."""
        if not self._known:
            self.say(f"stopped while asking. Should the server have the question, {self._again} picks it up")
            return
        self.say(f"stopped waiting; the question stays open. To pick it up, ask again with {self._again}")

    def withdrawn(self, ended: Outcome | None) -> None:
        """The wait was stopped and its question with it. None: the server could not be told."""
        if ended is None:
            self.say(f"stopped, but the question could not be cancelled: it is open until its deadline ({self._again})")
        elif ended.status == TaskStatus.CANCELLED:
            self.say(
                "stopped, and the question is cancelled: nobody is asked any more. "
                "To ask again, give it another idempotency_key"
            )
        else:
            self.say(f"stopped, but the question was {ended.status}: ask again with {self._again} for what came of it")

    def review_url(self, outcome: Outcome) -> str:
        """Where a person answers."""
        return self._settings.review_url(outcome.task_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The wait is over."""


class PlainProgress(Progress):
    """One line for a log, once the question is asked."""

    _told = _away = _missing = False

    def asks(self, question: HumanTask[Any]) -> None:
        """This is asked next; it gets a line of its own."""
        super().asks(question)
        self._told = False

    def tell(self, outcome: Outcome) -> None:
        """The first news of it is the line."""
        super().tell(outcome)
        if not self._told:
            self._told = True
            self.say(
                f"{self.asked.task} - waiting for a person at {self.review_url(outcome)} "
                f"(up to {duration(self.asked.seconds)}; pick up again with {self._again})"
            )

    def trouble(self, pause: Pause) -> None:
        """The first trouble of each kind is another line."""
        if pause.missing and not self._missing:
            self._missing = True
            self.say(f"{self.asked.task} - {pause.reason}")
        elif not pause.missing and not self._away:
            self._away = True
            self.say(f"{self.asked.task} - the server does not answer ({pause.reason}); trying on until the deadline")

    def say(self, words: str) -> None:
        """Write one line immediately. A stderr that cannot take it does not end the wait."""
        with suppress(Exception):
            sys.stderr.write(f"awaithumans: {one_line(words)}\n")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """`0:07`, `14:05`, `3:04:05`, `2 d 3:04:05`."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if days or hour else f"{minute}:{second:02}"
    return f"{days} d {clock}" if days else clock
