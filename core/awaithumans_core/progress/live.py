"""The live block on a terminal, drawn by Rich: elapsed time, deadline, status of the task, and where to answer.

All waits of a process share one block, because a terminal has only one last line.
"""

import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ClassVar, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from awaithumans_core.flow import Pause
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress.base import Progress, duration, is_terminal
from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

MAX_SHOWN = 10
"""Maximum number of waits that are shown at once, because a terminal has few lines."""

WATCHED_POLL_SECONDS = 5
"""Seconds for which a poll is held while a user watches the terminal.

It is short because a poll returns a change of status only when its time is up.
"""

NAME_CHARS = 60
"""Maximum length of the name of the person who answered, so that room for the question is left."""

FAR = timedelta(hours=20)
"""A deadline further away than this is shown with its date."""


def can_be_live() -> bool:
    """Whether the terminal on stderr can redraw a line."""
    return not Console(stderr=True).is_dumb_terminal


class LiveProgress(Progress):
    """Shows two lines that are kept up to date, and plain lines for messages that stay on the screen."""

    poll_seconds = WATCHED_POLL_SECONDS
    _lock: ClassVar[threading.Lock] = threading.Lock()
    _shown: ClassVar[list["LiveProgress"]] = []
    _live: ClassVar[Live | None] = None

    def __init__(self, question: HumanTask[Any], settings: Settings) -> None:
        super().__init__(question, settings)
        self._console = Console(stderr=True)
        self._since = time.monotonic()
        self._standing: Outcome | None = None
        self._away: str | None = None
        self._advice = ""
        self._until = datetime.now() + timedelta(seconds=question.seconds)

    def asks(self, question: HumanTask[Any]) -> None:
        """Record the question that is asked next, which has a deadline of its own."""
        super().asks(question)
        self._standing = None
        self._until = datetime.now() + timedelta(seconds=question.seconds)

    def tell(self, outcome: Outcome) -> None:
        """Record the status of the task for the next redraw. The key stays on the screen, in case the script dies."""
        if self._standing is None:
            if outcome.created_at is not None and outcome.timeout_seconds is not None:  # resumed: the task may be older
                with suppress(OverflowError):
                    deadline = outcome.created_at + timedelta(seconds=outcome.timeout_seconds)
                    self._until = deadline.astimezone().replace(tzinfo=None)
            self.say(f"asked; should this script stop, pick it up again with {self._again}")
        self._standing, self._away = outcome, None
        super().tell(outcome)

    def trouble(self, pause: Pause) -> None:
        """Show the trouble in the block until there is a new status."""
        self._away = pause.reason if pause.missing else f"the server does not answer ({pause.reason}); trying on"
        self._advice = pause.advice

    def ends(self, outcome: Outcome) -> Outcome:
        """Print one line that stays on the screen and shows how the task ended."""
        who = outcome.completed_by_display_name or outcome.completed_by_email
        by = f" by {one_line(who, NAME_CHARS)}" if who else ""
        where = f" ({outcome.completed_via_channel})" if outcome.completed_via_channel else ""
        line = f"awaithumans: {outcome.status}{by}{where} after {self._waited()} · {self.asked.task}"
        self._print(Text(one_line(line)), no_wrap=True, overflow="ellipsis")  # Rich ignores these on the text itself
        return super().ends(outcome)

    def say(self, words: str) -> None:
        """Print a message above the block, where it stays."""
        self._print(f"awaithumans: {one_line(words)}", markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _print(self, shown: RenderableType, **options: Any) -> None:
        with suppress(Exception):  # a closed terminal or a replaced stderr must not end the wait
            self._console.print(shown, **options)

    def lines(self) -> RenderableType:
        """Return the lines that show the current state of this wait."""
        shown = self._shown_lines()
        if self._away is None:
            return shown
        trouble = Text(one_line(f"  {self._away}"), style="yellow", no_wrap=True, overflow="ellipsis")
        return Group(shown, trouble, *([Text(one_line(f"  {self._advice}"), style="yellow")] if self._advice else []))

    def _shown_lines(self) -> RenderableType:
        task = one_line(self.asked.task)
        if self._standing is None:
            return Text(f"{self._waited()} asking · {task}", no_wrap=True, overflow="ellipsis")
        left = self._until - datetime.now()
        moment = self._until.strftime("%d %b %H:%M" if left > FAR else "%H:%M")
        deadline = f"{duration(left.total_seconds())} left, until {moment}" if left > timedelta() else "at its deadline"
        head = Text.assemble(
            (self._waited(), "bold"), " ", (one_line(self._standing.status), "bold cyan"), f" · {deadline} · {task}"
        )
        head.no_wrap, head.overflow = True, "ellipsis"
        return Group(head, Text(f"  {one_line(self.review_url(self._standing))}", style="blue", overflow="fold"))

    def _waited(self) -> str:
        return duration(time.monotonic() - self._since)

    def __enter__(self) -> Self:
        cls = LiveProgress
        with cls._lock:
            cls._shown.append(self)
            if cls._live is None:
                cls._live = Live(
                    console=self._console,
                    get_renderable=_block,
                    refresh_per_second=1,
                    transient=True,
                    redirect_stdout=is_terminal(sys.stdout),  # a stdout that is redirected to a file stays there
                )
                with suppress(Exception):
                    cls._live.start()
            self._console = cls._live.console
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cls = LiveProgress
        with cls._lock:
            cls._shown.remove(self)
            if not cls._shown and cls._live is not None:
                with suppress(Exception):
                    cls._live.stop()
                cls._live = None


def _block() -> RenderableType:
    shown = list(LiveProgress._shown)  # pyright: ignore[reportPrivateUsage]  # all waits share the block
    lines = [wait.lines() for wait in shown[:MAX_SHOWN]]
    if len(shown) > MAX_SHOWN:
        lines.append(Text(f"and {len(shown) - MAX_SHOWN} more"))
    return Group(*lines)
