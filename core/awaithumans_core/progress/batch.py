"""The silent progress of a batch of questions, which is the base of the visible forms of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from awaithumans_core.flow import Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress.base import INTERRUPTS, deadline_of, duration, shown_key
from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

LISTED = 3
"""Maximum number of open questions that are listed when a batch is stopped."""

LISTED_CHARS = 40
"""Maximum length of the text of a listed question."""


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question of a batch whose task is open."""

    question: HumanTask[Any]
    task_id: str
    since: datetime
    """When its task was created, in local time. It may be older than the batch."""
    until: datetime
    """When its task ends, in local time."""


class BatchProgress:
    """Silent progress reporter of a batch; the base class of the others."""

    def __init__(self, asked: Sequence[HumanTask[Any]], settings: Settings) -> None:
        self.total = len(asked)
        self.answered = 0
        self.failed = 0
        self._asked, self._settings = asked, settings
        self._open: dict[int, OpenQuestion] = {}
        self._began = time.monotonic()
        self._trouble: Pause | None = None

    def opened(self, position: int, question: HumanTask[Any], created: Outcome) -> OpenQuestion:
        """Record that a question, or its re-ask, has an open task."""
        now = datetime.now()
        since = created.created_at.astimezone().replace(tzinfo=None) if created.created_at is not None else now
        until = deadline_of(created) or now + timedelta(seconds=question.seconds)
        opened = self._open[position] = OpenQuestion(self._asked[position], created.task_id, min(since, now), until)
        return opened

    def ended(self, position: int, *, answered: bool) -> None:
        """Record that a question has ended, with an answer or without one."""
        self._open.pop(position, None)
        if answered:
            self.answered += 1
        else:
            self.failed += 1

    def trouble(self, pause: Pause) -> None:
        """Record that there was no usable reply. The call is tried again."""
        if not pause.missing:  # a single missing task is logged, and ends in its question's own error
            self._trouble = pause

    def replied(self) -> None:
        """Record that there was a usable reply."""
        self._trouble = None

    @property
    def open(self) -> list[OpenQuestion]:
        """The open questions, oldest first."""
        return sorted(self._open.values(), key=lambda each: each.since)

    @property
    def waited(self) -> str:
        """How long the batch has been waiting."""
        return duration(time.monotonic() - self._began)

    def say(self, words: str) -> None:
        """Show a message that stays visible after the batch."""

    def review_url(self, opened: OpenQuestion) -> str:
        """Return the URL at which a person answers."""
        return self._settings.review_url(opened.task_id)

    def left_open(self) -> None:
        """Report that the batch was stopped, and list some of the questions that stay open."""
        still_open = self.open
        if not still_open:
            reason = f" ({trouble_of(self._trouble)})" if self._trouble is not None else ""
            self.say(f"stopped while asking {questions(self.total)}{reason}")
            return
        number, listed = len(still_open), still_open[:LISTED]
        unknown = any(shown_key(each.question) for each in still_open)
        texts = [one_line(each.question.task, LISTED_CHARS) for each in listed]
        if unknown and number <= LISTED:  # all of them can be picked up by what is listed here
            texts = [f"{text} ({shown_key(each.question)})" for text, each in zip(texts, listed, strict=True)]
            again = (
                "Asked again with this key, it goes on" if number == 1 else "Asked again with these keys, they go on"
            )
        elif unknown:
            again = "Only questions with an idempotency_key of yours can be picked up"
        else:
            again = "The same call goes on with it" if number == 1 else "The same call goes on with them"
        more = f" and {number - LISTED:,} more" if number > LISTED else ""
        self.say(
            f"stopped waiting; {number:,} of {questions(self.total)} {'stays' if number == 1 else 'stay'} open: "
            f"{' · '.join(texts)}{more}. {again}"
        )

    def finished(self) -> None:
        """Report that all questions have ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the progress. A program that leaves its loop early knows what it leaves open, so that is not reported."""
        if kind is not None and issubclass(kind, INTERRUPTS):
            self.left_open()
        elif kind is None:
            self.finished()


def trouble_of(pause: Pause) -> str:
    """Return why there is no usable reply, as text."""
    return f"the server does not answer: {pause.reason}"


def questions(number: int) -> str:
    """Return a number of questions as text."""
    return "1 question" if number == 1 else f"{number:,} questions"
