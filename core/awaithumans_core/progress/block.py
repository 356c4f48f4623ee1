"""The live block at the bottom of the terminal, drawn by Rich. All waits of a process share it.

A terminal has only one last line, and a user who reads few. So messages of one kind are printed a few times, and then
once more for all others.
"""

import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from awaithumans_core.progress.base import is_terminal
from awaithumans_core.safe_text import one_line

MAX_SHOWN = 10
"""Maximum number of waits that are shown at once, because a terminal has few lines."""

MAX_REPEATED = 3
"""Maximum number of messages of one kind while the block is shown."""


class Shown(Protocol):
    """A part of the block."""

    def lines(self, width: int) -> RenderableType:
        """Return the lines that show the current state, for a terminal of this width."""
        ...


class Block:
    """The live block. It is shown while it has parts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[Shown] = []
        self._live: Live | None = None
        self._console = Console(stderr=True)
        self._repeated: Counter[str] = Counter()

    def add(self, part: Shown) -> None:
        """Show a part, and the block if this is the first one."""
        with self._lock:
            self._parts.append(part)
            if self._live is None:
                self._console, self._repeated = Console(stderr=True), Counter()
                self._live = Live(
                    console=self._console,
                    get_renderable=self._render,
                    refresh_per_second=1,
                    transient=True,
                    redirect_stdout=is_terminal(sys.stdout),  # a stdout that is redirected to a file stays there
                )
                with suppress(Exception):
                    self._live.start()

    def remove(self, part: Shown) -> None:
        """Show a part no longer, and end the block with the last one."""
        with self._lock:
            self._parts.remove(part)
            if not self._parts and self._live is not None:
                with suppress(Exception):
                    self._live.stop()
                self._live = None

    def say(self, words: str, *, others: str | None = None) -> None:
        """Print a message above the block, where it stays.

        Args:
            words: The message.
            others: Printed once in place of all further messages with these `others`, after the first few.
        """
        if others is not None and self._parts:
            self._repeated[others] += 1
            if self._repeated[others] > MAX_REPEATED + 1:
                return
            if self._repeated[others] == MAX_REPEATED + 1:
                words = others
        self._print(f"awaithumans: {one_line(words)}", markup=False, emoji=False, highlight=False, soft_wrap=True)

    def end(self, words: str) -> None:
        """Print one line that shows how something ended, cut at the width of the terminal."""
        line = Text(f"awaithumans: {one_line(words)}")
        self._print(line, no_wrap=True, overflow="ellipsis")  # Rich ignores these on the text itself

    def _print(self, shown: RenderableType, **options: Any) -> None:
        with suppress(Exception):  # a closed terminal or a replaced stderr must not end the wait
            self._console.print(shown, **options)

    def _render(self) -> RenderableType:
        shown, width = list(self._parts), self._console.width
        lines = [part.lines(width) for part in shown[:MAX_SHOWN]]
        if len(shown) > MAX_SHOWN:
            lines.append(Text(f"and {len(shown) - MAX_SHOWN} more"))
        return Group(*lines)


BLOCK = Block()
"""The block of this process."""


def can_be_live() -> bool:
    """Whether the terminal on stderr can redraw a line."""
    return not Console(stderr=True).is_dumb_terminal
