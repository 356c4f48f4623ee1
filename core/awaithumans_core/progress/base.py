"""The silent progress of one wait, which is the base of the visible forms of progress."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from awaithumans_core.flow import POLL_SECONDS, Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.settings import Settings
from awaithumans_core.status import TaskStatus
from awaithumans_core.task import HumanTask, is_random_key

INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
"""Exceptions that stop a wait from outside. Under `asyncio.run`, Ctrl-C arrives as a cancellation."""


class Progress:
    """Silent progress reporter; the base class of the others."""

    poll_seconds = POLL_SECONDS
    """Seconds for which a long poll may be held."""

    def __init__(self, question: HumanTask[Any], settings: Settings) -> None:
        self.asked = question
        """The question that is currently asked: the original one or a re-ask."""
        self._settings = settings
        self._known = False
        """Whether the server is known to have the question."""
        self._until = datetime.now() + timedelta(seconds=question.seconds)
        self._key = shown_key(question)

    def asks(self, question: HumanTask[Any]) -> None:
        """Record the question that is asked next, which has a deadline of its own."""
        self.asked = question
        self._until = datetime.now() + timedelta(seconds=question.seconds)

    def tell(self, outcome: Outcome) -> None:
        """Record the current status of the task."""
        self._known = True
        self._until = deadline_of(outcome) or self._until

    def trouble(self, pause: Pause) -> None:
        """Report that there was no usable reply or that the server does not know the task. The call is tried again."""

    def ends(self, outcome: Outcome) -> Outcome:
        """Report how the task ended, and return its outcome."""
        return outcome

    def say(self, words: str) -> None:
        """Show a message that stays visible after the wait."""

    def left_open(self) -> None:
        """Report that the wait was stopped and the question stays open."""
        if not self._known:
            again = self._key or "the same call"
            self.say(f"stopped while asking. Should the server have the question, {again} picks it up")
        elif self._key is None:
            self.say("stopped waiting; the question stays open, and the same call picks it up")
        else:
            self.say(f"stopped waiting; the question stays open. To pick it up, ask again with {self._key}")

    def withdrawn(self, ended: Outcome | None) -> None:
        """Report that the wait was stopped and its question withdrawn. None: the question could not be cancelled."""
        again = f"ask again with {self._key}" if self._key else "make the same call"
        if ended is None:
            self.say(
                "stopped, but the question could not be cancelled: it is open until its deadline. "
                f"To pick it up, {again}"
            )
        elif ended.status == TaskStatus.CANCELLED:
            self.say(
                "stopped, and the question is cancelled: no person is asked any more. "
                "To ask again, give it another idempotency_key"
            )
        else:
            self.say(f"stopped, but the question was {ended.status}: {again} for what came of it")

    def review_url(self, outcome: Outcome) -> str:
        """Return the URL at which a person answers."""
        return self._settings.review_url(outcome.task_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the progress, since the wait is over."""


def shown_key(question: HumanTask[Any]) -> str | None:
    """Return the argument that picks the question up. None: its key is the caller's own, so the same call does."""
    key = question.idempotency_key
    return f"idempotency_key={key!r}" if is_random_key(key) else None


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is a terminal.

    A program may have closed its stream, or replaced it by None or by an object of its own without `isatty`.
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except Exception:  # any replacement of the stream may fail here; it is not a terminal
        return False


def deadline_of(outcome: Outcome) -> datetime | None:
    """Return the local time at which the task ends, as far as its record shows it. It may be older than the wait."""
    if outcome.created_at is None or outcome.timeout_seconds is None:
        return None
    with suppress(OverflowError):
        return (outcome.created_at + timedelta(seconds=outcome.timeout_seconds)).astimezone().replace(tzinfo=None)
    return None


def clock(moment: datetime, now: datetime) -> str:
    """Return a local time as text, such as `14:05`, or with its date if that is not today's."""
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%d %b %H:%M")


def time_left(until: datetime, now: datetime) -> str:
    """Return a deadline as text, such as `until 14:05, 59:12 left` or `until 30 Nov 14:05, 23 h 59 min left`."""
    left = (until - now).total_seconds()
    return f"until {clock(until, now)}, {remaining(left)} left" if left > 0 else "at its deadline"


def remaining(seconds: float) -> str:
    """Return the time to a deadline as text, such as `14:05`, `23 h 59 min` or `6 d 23 h`."""
    minutes = int(seconds) // 60
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days} d {hour} h" if days else f"{hours} h {minute} min" if hours else duration(seconds)


def duration(seconds: float) -> str:
    """Return a duration as text, such as `0:07`, `14:05`, `3:04:05` or `2 d 3:04:05`."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if days or hour else f"{minute}:{second:02}"
    return f"{days} d {clock}" if days else clock
