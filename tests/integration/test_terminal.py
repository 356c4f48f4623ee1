"""What a person at a terminal sees while a script waits: a pseudo terminal, real signals, a real script."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans, faults

pytestmark = pytest.mark.edges

SCRIPT = """
import asyncio, signal, sys
from pydantic import BaseModel
from awaithumans_core import await_human, await_human_sync

class Decision(BaseModel):
    approved: bool

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and so would this
print("working", flush=True)
question = dict(task="Approve $250?", response_schema=Decision, idempotency_key="refund:1", timeout_seconds=3600)
options = {name: value for name, value in (question | OPTIONS).items() if value is not None}
decision = await_human_sync(**options) if SYNC else asyncio.run(await_human(**options))
print("approved" if decision.approved else "declined", flush=True)
"""

BATCH = """
import asyncio, signal
from pydantic import BaseModel
from awaithumans_core import HumanTask, SyncTaskClient, TaskClient

class Decision(BaseModel):
    approved: bool

signal.signal(signal.SIGINT, signal.default_int_handler)
questions = [
    HumanTask(task=f"Approve refund {number}?", response_schema=Decision, idempotency_key=f"refund:{number}")
    for number in range(3)
]

async def ask():
    async with TaskClient() as client:
        await client.wait_all(questions)

if SYNC:
    with SyncTaskClient() as client:
        client.wait_all(questions)
else:
    asyncio.run(ask())
"""

WAYS = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])


@pytest.fixture
def humans() -> Generator[FakeHumans]:
    humans = FakeHumans(clock=SystemClock())
    with humans.serving():
        yield humans


@dataclass
class Terminal:
    """A script in a pseudo terminal of 80 columns."""

    process: "subprocess.Popen[bytes]"
    master: int
    raw: str = field(default="")

    def read(self, until: str, seconds: float = 60.0) -> str:
        """Return everything shown so far, once it contains this text."""
        end = time.monotonic() + seconds
        while until not in self.shown:
            assert time.monotonic() < end, f"{until!r} never came:\n{self.shown}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.raw += os.read(self.master, 65536).decode()
                except OSError:  # the script has ended
                    assert until in self.shown, f"{until!r} never came:\n{self.shown}"
        return self.shown

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        os.close(self.master)

    @property
    def shown(self) -> str:
        """Return the output without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw).replace("\r", "")


@contextmanager
def terminal(
    humans: FakeHumans,
    folder: Path,
    *,
    sync: bool,
    options: str = "{}",
    stdout: Path | None = None,
    term: str = "xterm",
    hangs_up: bool = True,
    program: str = SCRIPT,
    environment: Mapping[str, str] | None = None,
) -> Generator[Terminal]:
    script = folder / "script.py"
    ignored = "" if hangs_up else "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    script.write_text(ignored + program.replace("OPTIONS", options).replace("SYNC", str(sync)))
    master, slave = pty.openpty()
    out = slave if stdout is None else os.open(stdout, os.O_WRONLY | os.O_CREAT)
    given = os.environ | {
        "AWAITHUMANS_URL": humans.url,
        "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
        "TERM": term,
        "COLUMNS": "80",
        **(environment or {}),
    }
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=slave, stdout=out, stderr=slave, env=given, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):  # already closed
            os.close(master)
        if stdout is not None:
            os.close(out)


@WAYS
def test_live_block_shows_progress_and_the_answerer(humans: FakeHumans, tmp_path: Path, *, sync: bool) -> None:
    """Elapsed time, status, deadline and link are updated, and a last line names who answered."""
    humans.answer("Approve", {"approved": True}).after(7).by("anna@example.com").passes("notified", "in_progress")
    with terminal(humans, tmp_path, sync=sync) as screen:
        screen.read("0:01 ")
        task = humans.task("Approve")
        assert f"{humans.url}/task?id={task.id}" in screen.shown
        deadline = r"until (\d\d \w+ )?\d\d:\d\d, 59:5\d left"
        assert re.search(rf"0:0\d (created|notified) · {deadline} · Approve \$250\?", screen.shown)
        screen.read(" in_progress ")
        shown = screen.read("approved\n")
        assert screen.process.wait(5) == 0
    assert "completed by anna@example.com (dashboard) after 0:0" in shown
    assert "refund:1" not in shown, "the caller knows the key that it chose"


def test_progress_does_not_write_to_stdout(humans: FakeHumans, tmp_path: Path) -> None:
    """A file that stdout is redirected to has only the script's own output."""
    humans.answer("Approve", {"approved": True}).after(1.5)
    with terminal(humans, tmp_path, sync=True, stdout=tmp_path / "out.txt") as screen:
        screen.read("completed by")
        assert screen.process.wait(5) == 0
    assert (tmp_path / "out.txt").read_text() == "working\napproved\n"


def test_dumb_terminal_gets_one_line(humans: FakeHumans, tmp_path: Path) -> None:
    """TERM=dumb is treated as a pipe."""
    humans.answer("Approve", {"approved": True}).after(1)
    with terminal(humans, tmp_path, sync=True, term="dumb") as screen:
        shown = screen.read("approved\n")
        assert screen.process.wait(5) == 0
    assert shown.count("awaithumans: ") == 1
    assert "\x1b" not in screen.raw


@WAYS
@pytest.mark.parametrize("cancels", [False, True], ids=["open", "cancelled"])
def test_ctrl_c_ends_the_wait_at_once(humans: FakeHumans, tmp_path: Path, *, sync: bool, cancels: bool) -> None:
    """The question stays open for its key, or is cancelled on request."""
    with terminal(humans, tmp_path, sync=sync, options=f"{{'cancel_on_interrupt': {cancels}}}") as screen:
        screen.read("/task?id=")
        screen.process.send_signal(signal.SIGINT)
        shown = screen.read("KeyboardInterrupt")
        assert screen.process.wait(5) != 0
    task = humans.task("Approve")
    if cancels:
        assert task.status == "cancelled"
        assert "no person is asked any more" in shown
        return
    assert task.status == "created"
    assert "the question stays open, and the same call picks it up" in shown.replace("\n", "")
    assert "httpcore" not in shown
    humans.complete(task.id, {"approved": False})
    with terminal(humans, tmp_path, sync=sync) as screen:
        screen.read("declined\n")
    assert len(humans.tasks) == 1


@WAYS
def test_outage_is_shown_on_the_terminal(humans: FakeHumans, tmp_path: Path, *, sync: bool) -> None:
    """The terminal shows that the server is unreachable, and that it is reachable again."""
    humans.answer("Approve", {"approved": True}).after(4)
    humans.fault(faults.status(503), on="poll", times=2)
    with terminal(humans, tmp_path, sync=sync) as screen:
        screen.read("the server does not answer")
        screen.read("approved\n")


def test_script_stopped_before_asking_reports_no_open_question(humans: FakeHumans, tmp_path: Path) -> None:
    """The output does not claim an open question that may not exist."""
    humans.fault(faults.status(503), on="create", times=1000)
    with terminal(humans, tmp_path, sync=True) as screen:
        screen.read("the server does not answer")
        screen.process.send_signal(signal.SIGINT)
        shown = screen.read("KeyboardInterrupt")
    assert "stopped while asking" in shown


def test_detached_script_gets_its_answer_after_the_terminal_closed(humans: FakeHumans, tmp_path: Path) -> None:
    """A detached script whose terminal closes still gets its answer."""
    with terminal(humans, tmp_path, sync=True, stdout=tmp_path / "out.txt", hangs_up=False) as screen:
        screen.read("/task?id=")
        screen.hang_up()
        humans.complete(humans.task("Approve").id, {"approved": True})
        assert screen.process.wait(10) == 0
    assert (tmp_path / "out.txt").read_text().endswith("approved\n")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_killed_script_is_resumed_by_the_key_on_the_screen(
    humans: FakeHumans, tmp_path: Path, sign: signal.Signals
) -> None:
    """A key that the caller did not choose is shown. With it the script gets the answer, without a second task."""
    with terminal(humans, tmp_path, sync=True, options="{'idempotency_key': None}") as screen:
        shown = screen.read("/task?id=")
        screen.process.send_signal(sign)
        screen.process.wait(5)
    key = re.search(r"idempotency_key='(script:\w+)'", shown.replace("\n", ""))
    assert key is not None, shown
    humans.complete(humans.task("Approve").id, {"approved": True})
    with terminal(humans, tmp_path, sync=True, options=f"{{'idempotency_key': {key[1]!r}}}") as screen:
        screen.read("approved\n")
    assert len(humans.tasks) == 1


@pytest.mark.edges
@WAYS
@pytest.mark.parametrize("colours", [True, False], ids=["colours", "NO_COLOR"])
def test_batch_is_one_live_line_and_lists_what_stays_open(
    humans: FakeHumans, tmp_path: Path, *, sync: bool, colours: bool
) -> None:
    """The line counts the questions and links the oldest open one. After Ctrl-C one line names those that stay open."""
    humans.answer("refund 0", {"approved": True}).after(3)
    environment = {"NO_COLOR": "" if colours else "1"}
    with terminal(humans, tmp_path, sync=sync, program=BATCH, environment=environment) as screen:
        shown = screen.read("2 open, 1 answered")
        assert "awaithumans: " not in shown
        screen.read(" · oldest 0:0")
        screen.process.send_signal(signal.SIGINT)
        shown = screen.read("KeyboardInterrupt")
        assert screen.process.wait(30) != 0
    links = [f"{humans.url}/task?id={task.id}" for task in humans.tasks if "refund 0" not in task.asked["task"]]
    assert any(link in shown for link in links)
    assert shown.count("awaithumans: ") == 1
    stopped = shown[shown.index("awaithumans: ") :].replace("\n", "")
    assert "stopped waiting; 2 of 3 questions stay open: Approve refund " in stopped
    assert all(f"Approve refund {number}?" in stopped for number in (1, 2))
    assert ("\x1b[34m" in screen.raw) is colours
