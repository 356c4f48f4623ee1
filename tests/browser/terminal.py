"""Pictures of a terminal: programs run in a real one, and what they show is drawn as SVG."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme
from rich.text import Text

COLUMNS, ROWS = 110, 30
LIMIT_SECONDS = 120.0
THEMES: Mapping[str, TerminalTheme] = {"light": DEFAULT_TERMINAL_THEME, "dark": DIMMED_MONOKAI}
FOREIGN = re.compile(r"@font-face \{.*?\}|Fira Code, |<!--.*?-->", re.DOTALL)
"""The font that Rich's drawing loads from another host."""
FRAME, VISIBLE_FRAME = "rgba(255,255,255,0.35)", "rgba(128,128,128,0.6)"

CONTROL = re.compile(r"\x1b\[(?P<count>\d*)(?P<name>[AK]|\?\d+[hl])|\r|\n")


class Terminal:
    """A terminal with one program in it."""

    def __init__(self) -> None:
        self.output = ""

    @asynccontextmanager
    async def running(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        """Run a program in a folder. It is ended at the end of the context."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**os.environ, **environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        reading = asyncio.create_task(asyncio.to_thread(self._read, ours))
        try:
            yield process
            await asyncio.wait_for(process.wait(), LIMIT_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reading
            os.close(ours)

    def _read(self, descriptor: int) -> None:
        while True:
            try:
                piece = os.read(descriptor, 65536)
            except OSError:  # the program has ended
                return
            if not piece:
                return
            self.output += piece.decode(errors="replace")

    async def shows(self, text: str) -> None:
        """Wait until the screen has a text."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while text not in Text.from_ansi(self.screen()).plain:
                await asyncio.sleep(0.1)

    def screen(self) -> str:
        """Return the lines on the screen with their colours: a line that was drawn again is there once."""
        lines, row, at = [""], 0, 0
        for control in CONTROL.finditer(self.output):
            lines[row] += self.output[at : control.start()]
            at = control.end()
            if control[0] == "\n":
                row += 1
                if row == len(lines):
                    lines.append("")
            elif control["name"] == "A":
                row = max(0, row - int(control["count"] or 1))
            elif control["name"] == "K":
                lines[row] = ""
        lines[row] += self.output[at:]
        return "\n".join(lines).rstrip()


def draw(screen: str, title: str, path: Path) -> None:
    """Draw a screen as two files, `{path}-light.svg` and `{path}-dark.svg`."""
    for scheme, theme in THEMES.items():
        console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(screen))
        drawn = console.export_svg(title=title, theme=theme, unique_id=path.name)
        path.with_name(f"{path.name}-{scheme}.svg").write_text(FOREIGN.sub("", drawn).replace(FRAME, VISIBLE_FRAME))
