"""The silent progress of one wait, which is the base of the visible forms of progress."""

from types import TracebackType
from typing import Any, Self

from awaithumans_core.flow import POLL_SECONDS, Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.settings import Settings
from awaithumans_core.status import TaskStatus
from awaithumans_core.task import HumanTask


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
        self._again = f"idempotency_key={question.idempotency_key!r}"

    def asks(self, question: HumanTask[Any]) -> None:
        """Record the question that is asked next."""
        self.asked = question

    def tell(self, outcome: Outcome) -> None:
        """Record the current status of the task."""
        self._known = True

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
            self.say(f"stopped while asking. Should the server have the question, {self._again} picks it up")
            return
        self.say(f"stopped waiting; the question stays open. To pick it up, ask again with {self._again}")

    def withdrawn(self, ended: Outcome | None) -> None:
        """Report that the wait was stopped and its question withdrawn. None: the question could not be cancelled."""
        if ended is None:
            self.say(f"stopped, but the question could not be cancelled: it is open until its deadline ({self._again})")
        elif ended.status == TaskStatus.CANCELLED:
            self.say(
                "stopped, and the question is cancelled: no person is asked any more. "
                "To ask again, give it another idempotency_key"
            )
        else:
            self.say(f"stopped, but the question was {ended.status}: ask again with {self._again} for what came of it")

    def review_url(self, outcome: Outcome) -> str:
        """Return the URL at which a person answers."""
        return self._settings.review_url(outcome.task_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the progress, since the wait is over."""


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is a terminal.

    A program may have closed its stream, or replaced it by None or by an object of its own without `isatty`.
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except Exception:  # any replacement of the stream may fail here; it is not a terminal
        return False


def duration(seconds: float) -> str:
    """Return a duration as text, such as `0:07`, `14:05`, `3:04:05` or `2 d 3:04:05`."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if days or hour else f"{minute}:{second:02}"
    return f"{days} d {clock}" if days else clock
