"""Progress output of a waiting script: any standard streams, and many questions at once."""

import asyncio
import io
import re
from collections.abc import Callable, Generator
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from awaithumans_core import HumanTask, Outcome, Settings, await_human, await_human_sync
from awaithumans_core.flow import Pause
from awaithumans_core.progress import is_terminal
from awaithumans_core.progress.live import LiveBatchProgress, LiveProgress
from awaithumans_core.progress.plain import PlainBatchProgress
from awaithumans_core.task import random_key
from awaithumans_core.testing import FakeHumans, faults
from tests.support.workflows import Decision

SETTINGS = Settings(url="http://localhost:3001")


class Lines:
    """A stream of the application, such as the text box of a window."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """Do nothing, because everything is shown already."""


class WriteOnly:
    """A stream without `flush`."""

    def write(self, text: str) -> None:
        """Discard the text."""


class Broken(io.StringIO):
    """A stream that claims to be a terminal and accepts nothing."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise RuntimeError("the window is gone")


class Odd(Lines):
    """A stream that cannot tell whether it is a terminal."""

    def isatty(self) -> bool:
        raise RuntimeError("no window")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Callable[[], Any]] = {
    "no isatty": Lines,
    "isatty fails": Odd,
    "write only": WriteOnly,
    "a broken terminal": Broken,
    "an object": object,
    "closed": closed,
    "None": lambda: None,
}


def in_a_loop(**asked: Any) -> Any:
    return asyncio.run(await_human(**asked))


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("ask", [await_human_sync, in_a_loop], ids=["sync", "async"])
def test_question_is_asked_with_any_standard_streams(
    ask: Callable[..., Any], make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If progress cannot be shown, the answer still arrives."""
    monkeypatch.setenv("TERM", "xterm")
    humans, stream = FakeHumans(), make()
    humans.answer("Refund", {"approved": True})
    with redirect_stderr(stream), redirect_stdout(stream), humans.serving() as url:
        where = {"server_url": url, "api_key": humans.token}
        assert ask(task="Refund?", response_schema=Decision, timeout_seconds=900, **where).approved is True
    if isinstance(stream, Lines):
        assert stream.text.startswith("awaithumans: Refund? - waiting for a person at ")
        assert re.search(r"\(open until .*\d\d:\d\d, 1[45]:\d\d left; pick up again with idempotency_key=", stream.text)


def test_only_a_terminal_counts_as_one() -> None:
    """Every other replacement of a standard stream is not a terminal."""
    assert is_terminal(Broken())
    assert not any(is_terminal(make()) for name, make in STREAMS.items() if name != "a broken terminal")


# --- many questions


def asked(number: int, *, own_keys: bool) -> list[HumanTask[Decision]]:
    keys = [f"refund:{each}" if own_keys else random_key() for each in range(number)]
    return [
        HumanTask(task=f"Approve the refund of customer {each}?", response_schema=Decision, idempotency_key=key)
        for each, key in enumerate(keys)
    ]


def created(number: int, *, minutes: float = 0) -> Outcome:
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    return Outcome(task_id=f"task-{number}", status="created", created_at=at, timeout_seconds=86400)


def shown(batch: LiveBatchProgress, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(batch.lines(width))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [60, 140])
def test_live_line_of_a_batch_leaves_room_for_the_question(width: int) -> None:
    """A narrow terminal shows the counts, the age of the oldest question and its beginning; a wide one its deadline."""
    questions = asked(50, own_keys=True)
    batch = LiveBatchProgress(questions, SETTINGS)
    for number, question in enumerate(questions[:48]):
        batch.opened(number, question, created(number, minutes=65 if number == 7 else 5))
    for number in range(3):
        batch.ended(number, answered=number > 0)
    line, *link = shown(batch, width)
    assert line.startswith("0:00 45 open, 2 answered, 1 failed, 2 to ask · oldest 1:05:")
    assert len(line) <= width
    assert "".join(each.strip() for each in link) == SETTINGS.review_url("task-7")
    if width == 140:
        assert re.search(r" · until .*\d\d:\d\d, 22 h 5[45] min left · Approve the", line)


def test_live_line_shows_the_beginning_of_the_question_at_sixty_columns() -> None:
    """The deadline is left out for it."""
    (question,) = asked(1, own_keys=True)
    batch = LiveBatchProgress([question], SETTINGS)
    batch.opened(0, question, created(0, minutes=1))
    assert re.fullmatch(r"0:00 1 open · oldest 1:0\d · Approve the refund of cust.*", shown(batch, 60)[0])


@pytest.mark.parametrize(
    ("number", "own_keys", "expected"),
    [
        (1, True, "1 of 1 question stays open: {0}. The same call goes on with it"),
        (2, True, "2 of 2 questions stay open: {0} · {1}. The same call goes on with them"),
        (2, False, "2 of 2 questions stay open: {0} (idempotency_key='{k0}') · {1} (idempotency_key='{k1}'). Asked"),
        (50, True, "50 of 50 questions stay open: {0} · {1} · {2} and 47 more. The same call goes on with them"),
        (50, False, "50 of 50 questions stay open: {0} · {1} · {2} and 47 more. Only questions with an idempotency_"),
    ],
    ids=["one", "two", "keys shown", "fifty", "fifty without keys"],
)
def test_stopped_batch_lists_some_of_its_open_questions(
    number: int, expected: str, capsys: pytest.CaptureFixture[str], *, own_keys: bool
) -> None:
    """One line of bounded length names the number of open questions and how they are picked up."""
    questions = asked(number, own_keys=own_keys)
    with suppress(KeyboardInterrupt), PlainBatchProgress(questions, SETTINGS) as batch:
        for each, question in enumerate(questions):
            batch.opened(each, question, created(each, minutes=number - each))
        raise KeyboardInterrupt
    begun, stopped = capsys.readouterr().err.splitlines()
    assert begun.startswith(f"awaithumans: {number} question")
    texts = [question.task for question in questions]
    keys = {f"k{each}": question.idempotency_key for each, question in enumerate(questions)}
    assert stopped.startswith(f"awaithumans: stopped waiting; {expected.format(*texts, **keys)}")
    assert len(stopped) < 400


def test_batch_that_the_program_leaves_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A loop that takes the first answer and goes on is no interruption."""
    questions = asked(2, own_keys=True)

    def first() -> Generator[int]:
        with PlainBatchProgress(questions, SETTINGS) as batch:
            batch.opened(0, questions[0], created(0))
            yield 1

    answers = first()
    next(answers)
    answers.close()
    assert "stopped" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [3, 40], ids=["polled", "checked together"])
async def test_batch_tells_once_that_the_server_is_away(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """An outage while people are asked is reported with what to do, and the answers arrive after it."""
    questions = asked(number, own_keys=True)
    async with FakeHumans() as humans:
        humans.answer("Approve", {"approved": True}).after(10)
        humans.fault(faults.status(503), on="poll", times=3)
        humans.fault(faults.status(503), on="list", times=3)
        async with humans.client() as client:
            answers = await client.wait_all(questions)
    assert all(answer.error is None for answer in answers)
    shown = capsys.readouterr().err
    assert shown.count("the server does not answer") == 1
    assert "503" in shown


def test_live_batch_shows_an_outage_until_the_next_reply() -> None:
    """The line of the batch stays, with the reason and the advice below it."""
    questions = asked(2, own_keys=True)
    batch = LiveBatchProgress(questions, SETTINGS)
    batch.trouble(Pause(1.0, "GET /api/tasks: HTTP 503", advice="Start the awaithumans server"))
    line, reason, advice = shown(batch, 60)
    assert line == "0:00 0 open, 2 to ask"
    assert reason.strip().startswith("the server does not answer: GET /api/tasks: HTTP 503")
    assert advice.strip() == "Start the awaithumans server"
    batch.replied()
    assert shown(batch, 60) == [line]


def test_batch_stopped_while_asking_names_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong address is the usual cause."""
    with suppress(KeyboardInterrupt), PlainBatchProgress(asked(2, own_keys=True), SETTINGS) as batch:
        batch.trouble(Pause(1.0, "POST http://localhost:1/api/tasks: refused"))
        raise KeyboardInterrupt
    assert "stopped while asking 2 questions (the server does not answer: POST http" in capsys.readouterr().err


def test_keys_of_many_waits_are_shown_three_times(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that asks fifty questions at once keeps its screen."""
    waits = [LiveProgress(question, SETTINGS) for question in asked(50, own_keys=False)]
    with ExitStack() as stack:
        for number, wait in enumerate(waits):
            stack.enter_context(wait).tell(created(number))
        for wait in waits:
            wait.left_open()
    written = capsys.readouterr().err.splitlines()
    assert [sum(begin in line for line in written) for begin in ("asked; should", "stopped waiting")] == [3, 3]
    assert len([line for line in written if line.startswith("awaithumans: ")]) == 8
