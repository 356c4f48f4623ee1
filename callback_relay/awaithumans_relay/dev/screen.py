"""The terminal of `awaithumans-relay dev`: one line for each event, aligned on a terminal and plain in a file."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from awaithumans_core.safe_text import one_line

TEXT_CHARS = 300
"""Maximum length of a question or a reason."""
KINDS = {
    "asked": "cyan",
    "answered": "green",
    "delivered": "bold green",
    "rejected": "yellow",
    "cancelled": "yellow",
    "timed out": "yellow",
    "exhausted": "yellow",
    "warning": "yellow",
    "error": "bold red",
}
"""Kinds of events, and their colours."""
KIND_CHARS = max(map(len, KINDS))
TEXT_COLUMN = len("12:00:00  ") + KIND_CHARS + 2
"""The column of the terminal in which texts begin."""


class Screen:
    """Prints to stdout. Colours follow the terminal, NO_COLOR and FORCE_COLOR.

    Args:
        console: Where it prints. Default: stdout.
        clock: The current local time.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], datetime] = datetime.now) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._clock = clock

    def event(self, kind: str, text: str, note: str = "", *, link: str | None = None) -> None:
        """Print an event.

        Args:
            kind: One of `KINDS`.
            text: What happened, usually a question.
            note: Who is concerned.
            link: An address for the text.
        """
        time, text = f"{self._clock():%H:%M:%S}", one_line(text, TEXT_CHARS)
        note = one_line(note, TEXT_CHARS)
        if not self._console.is_terminal:
            self.plain("  ".join(filter(None, (time, f"{kind:<{KIND_CHARS}}", text, note and f"({note})", link))))
            return
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(style="dim")
        row.add_column(style=KINDS[kind], width=KIND_CHARS)
        row.add_column(overflow="fold")
        shown = Text(text, style=f"link {link}" if link else "")
        if note:
            room = self._console.width - TEXT_COLUMN
            shown = Text.assemble(shown, "  " if shown.cell_len + len(note) + 2 <= room else "\n", (note, "dim"))
        row.add_row(time, kind, shown)
        self._console.print(row)

    def table(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Print aligned rows: a name, a value, and the style of the value."""
        width = max(len(name) for name, *_ in rows)
        if not self._console.is_terminal:
            for name, value, _ in rows:
                self.plain(f"  {name:<{width}}  {one_line(value)}".rstrip())
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=0)
        grid.add_column(width=width, style="dim")
        grid.add_column(overflow="fold")
        for name, value, style in rows:
            grid.add_row("", name, Text(one_line(value), style=style))
        self._console.print(grid)

    def plain(self, text: str = "", style: str | None = None) -> None:
        """Print text as it is; on a terminal it is wrapped between words."""
        self._console.print(Text(text, style=style or ""), soft_wrap=not self._console.is_terminal)


class ScreenHandler(logging.Handler):
    """Shows warnings and errors of the relay and of graphs.

    Args:
        screen: Where they are shown.
        question: Returns the text of a task's question, if it is known.
    """

    def __init__(self, screen: Screen, question: Callable[[str], str | None]) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen
        self._question = question

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record without its traceback, which the log file has."""
        kind = "error" if record.levelno >= logging.ERROR else "warning"
        self._screen.event(kind, record.getMessage(), self._question(getattr(record, "task_id", None) or "") or "")
