"""Terminals in which a test follows a tutorial word for word."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from devservers import free_port

from tests.docs.pages import Block

LIMIT_SECONDS = 400.0

INTERRUPTIBLE = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Program that runs a command so that Ctrl-C ends it. A test run in the background ignores Ctrl-C, and so would it."""


class Terminal:
    """A terminal in the reader's folder. Its commands run one after the other."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self._output = folder.parent / f"{name}.txt"
        self._output.touch()
        self._folder, self._environment = folder, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0

    def shown(self) -> str:
        """What the command that was started last has printed."""
        return self._output.read_bytes()[self._seen :].decode()

    def run(self, command: list[str]) -> None:
        """Start a command, when the one before it has ended."""
        self.ended()
        self._seen = self._output.stat().st_size
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", INTERRUPTIBLE, *command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def shows(self, line: str) -> None:
        """Wait until the output has the line."""
        until = time.monotonic() + LIMIT_SECONDS
        while line not in self.shown():
            assert time.monotonic() < until, f"{line!r} is not in:\n{self.shown()}"
            ended = self._process is None or self._process.poll() is not None
            assert not ended or line in self.shown(), f"{line!r} is not in:\n{self.shown()}"
            time.sleep(0.1)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self.ended()

    def ended(self) -> None:
        """Wait until the command has ended."""
        if self._process is not None:
            self._process.wait(LIMIT_SECONDS)

    def close(self) -> None:
        """End the command if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
            self._process.kill()
            self._process.wait()


class Reader:
    """Follows the blocks of a tutorial by their titles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {flag: str(free_port()) for flag in ("--port", "--server-port", "--temporal-port")}
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWAITHUMANS_", "TEMPORAL_"))
        }
        self._environment = inherited | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self._ports['--temporal-port']}",
        }
        self._terminals: dict[str, Terminal] = {}

    def terminal(self, name: str) -> Terminal:
        """Return the terminal of this name, which is opened at its first use."""
        if name not in self._terminals:
            self._terminals[name] = Terminal(name.replace(" ", "-"), self.folder, self._environment)
        return self._terminals[name]

    def follow(self, block: Block) -> None:
        """Do what the block shows, or check it."""
        match (block.title or "").split(" "):
            case [""] | ["in", *_]:  # an example, or the installation, which this environment has
                return
            case ["terminal", number]:
                self._run(self.terminal(f"terminal {number}"), block.text)
            case ["terminal", number, "shows"]:
                for line in block.text.splitlines():
                    self.terminal(f"terminal {number}").shows(line)
            case ["keyboard,", "terminal", number]:
                assert block.text == "Ctrl-C\n"
                self.terminal(f"terminal {number}").interrupt()
            case ["your", "answer"]:
                self._answer(json.loads(block.text))
            case [file]:
                (self.folder / file).write_text(block.text)
            case _:
                raise AssertionError(f"{block}: the title {block.title!r} is not one that this test can follow")

    def _run(self, terminal: Terminal, commands: str) -> None:
        for words in (line.split() for line in commands.splitlines()):
            if words[0] in {"cd", "."}:  # the terminal is in the folder, and the environment is active
                continue
            if words[:2] == ["awaithumans-relay", "dev"]:  # on free ports, because tests run beside each other
                terminal.run([*words, *(part for flag in self._ports.items() for part in flag)])
                terminal.shows("Ctrl-C stops all")
            else:
                terminal.run(words)

    def _answer(self, response: dict[str, Any]) -> None:
        """Answer the question that was asked last, as the dashboard does."""
        dev = self.terminal("terminal 1")
        dev.shows("asked ")
        dev.shows("/task?id=")
        task = re.findall(r"/task\?id=(\w+)", dev.shown())[-1]
        instance = json.loads((self.folder / ".awaithumans/dev.json").read_text())
        reply = httpx.post(
            f"{instance['server_url']}/api/tasks/{task}/complete",
            headers={"Authorization": f"Bearer {instance['api_token']}"},
            json={"response": response, "completed_via_channel": "dashboard"},
            timeout=60,
            trust_env=False,
        )
        reply.raise_for_status()

    def close(self) -> None:
        """Close all terminals, the one with the servers last."""
        for name in sorted(self._terminals, reverse=True):
            self._terminals[name].close()


@contextmanager
def reader(folder: Path) -> Generator[Reader]:
    """Open terminals in a new folder, and close them at the end."""
    folder.mkdir()
    following = Reader(folder)
    try:
        yield following
    finally:
        following.close()
