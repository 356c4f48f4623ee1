"""What a wait and a batch show in the live block: elapsed time, deadline, status of the task, and where to answer."""

import time
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from awaithumans_core.flow import Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress.base import Progress, clock, duration, time_left
from awaithumans_core.progress.batch import BatchProgress, questions, trouble_of
from awaithumans_core.progress.block import BLOCK
from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

WATCHED_POLL_SECONDS = 5
"""Seconds for which a poll is held while a user watches the terminal.

It is short because a poll returns a change of status only when its time is up.
"""

NAME_CHARS = 60
"""Maximum length of the name of the person who answered, so that room for the question is left."""

TASK_CHARS = 24
"""Room for the question on its line. A narrow terminal shows less of the deadline to leave it."""

OTHERS_ASKED = "the keys of other questions are not shown: give a question an idempotency_key to be able to pick it up"
OTHERS_STOPPED = "the wait for other questions is stopped as well"


class LiveProgress(Progress):
    """Shows two lines that are kept up to date, and plain lines for messages that stay on the screen."""

    poll_seconds = WATCHED_POLL_SECONDS

    def __init__(self, question: HumanTask[Any], settings: Settings) -> None:
        super().__init__(question, settings)
        self._since = time.monotonic()
        self._standing: Outcome | None = None
        self._away: str | None = None
        self._advice = ""

    def asks(self, question: HumanTask[Any]) -> None:
        """Record the question that is asked next, which has a deadline of its own."""
        super().asks(question)
        self._standing = None

    def tell(self, outcome: Outcome) -> None:
        """Record the status of the task for the next redraw. The key stays on the screen, in case the script dies."""
        super().tell(outcome)
        if self._standing is None and self._key is not None:
            BLOCK.say(f"asked; should this script stop, pick it up again with {self._key}", others=OTHERS_ASKED)
        self._standing, self._away = outcome, None

    def trouble(self, pause: Pause) -> None:
        """Show the trouble in the block until there is a new status."""
        self._away = pause.reason if pause.missing else f"the server does not answer ({pause.reason}); trying on"
        self._advice = pause.advice

    def ends(self, outcome: Outcome) -> Outcome:
        """Print one line that stays on the screen and shows how the task ended."""
        who = outcome.completed_by_display_name or outcome.completed_by_email
        by = f" by {one_line(who, NAME_CHARS)}" if who else ""
        where = f" ({outcome.completed_via_channel})" if outcome.completed_via_channel else ""
        BLOCK.end(f"{outcome.status}{by}{where} after {self._waited()} · {self.asked.task}")
        return super().ends(outcome)

    def say(self, words: str) -> None:
        """Print a message above the block, where it stays."""
        BLOCK.say(words, others=OTHERS_STOPPED)

    def lines(self, width: int) -> RenderableType:
        """Return the lines that show the current state of this wait."""
        shown = self._shown_lines(width)
        if self._away is None:
            return shown
        return Group(shown, *_trouble_lines(self._away, self._advice))

    def _shown_lines(self, width: int) -> RenderableType:
        task = one_line(self.asked.task)
        if self._standing is None:
            return Text(f"{self._waited()} asking · {task}", no_wrap=True, overflow="ellipsis")
        head = Text.assemble((self._waited(), "bold"), " ", (one_line(self._standing.status), "bold cyan"))
        _end(head, self._until, task, width)
        return Group(head, _link(self.review_url(self._standing)))

    def _waited(self) -> str:
        return duration(time.monotonic() - self._since)

    def __enter__(self) -> Self:
        BLOCK.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        BLOCK.remove(self)


class LiveBatchProgress(BatchProgress):
    """Shows a batch as a line that is kept up to date, with the oldest open question and where it is answered."""

    def say(self, words: str) -> None:
        """Print a message above the block, where it stays."""
        BLOCK.say(words)

    def finished(self) -> None:
        """Print one line that stays on the screen."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        BLOCK.end(f"{questions(self.total)}: {self.answered:,} answered{failed} after {self.waited}")

    def lines(self, width: int) -> RenderableType:
        """Return the lines that show the current state of this batch, and what is wrong if the server is away."""
        shown, trouble = self._shown_lines(width), self._trouble
        if trouble is None:
            return shown
        return Group(shown, *_trouble_lines(f"{trouble_of(trouble)}; trying on", trouble.advice))

    def _shown_lines(self, width: int) -> RenderableType:
        still_open = self.open
        counts = {
            "open": len(still_open),
            "answered": self.answered,
            "failed": self.failed,
            "to ask": self.total - self.answered - self.failed - len(still_open),
        }
        shown = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "open")
        head = Text.assemble((self.waited, "bold"), " ", (shown, "bold cyan"))
        if not still_open:
            return head
        oldest = still_open[0]
        head.append(f" · oldest {duration((datetime.now() - oldest.since).total_seconds())}")
        _end(head, oldest.until, one_line(oldest.question.task), width, shortest="")
        return Group(head, _link(self.review_url(oldest)))

    def __enter__(self) -> Self:
        BLOCK.add(self)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        BLOCK.remove(self)


def _end(head: Text, until: datetime, task: str, width: int, *, shortest: str | None = None) -> None:
    """Add the deadline and the question to a line, in the longest form that leaves room for the question.

    The forms are: with the time left, without it, and `shortest`, if it is given.
    """
    now = datetime.now()
    forms = [f"{time_left(until, now)} · ", f"until {clock(until, now)} · ", shortest]
    room = width - cell_len(head.plain) - len(" · ") - min(cell_len(task), TASK_CHARS)
    given = [form for form in forms if form is not None]
    head.append(f" · {next((form for form in given if len(form) <= room), given[-1])}{task}")
    head.no_wrap, head.overflow = True, "ellipsis"


def _trouble_lines(reason: str, advice: str) -> list[Text]:
    line = Text(one_line(f"  {reason}"), style="yellow", no_wrap=True, overflow="ellipsis")
    return [line, Text(one_line(f"  {advice}"), style="yellow")] if advice else [line]


def _link(url: str) -> Text:
    return Text(f"  {one_line(url)}", style="blue", overflow="fold")
