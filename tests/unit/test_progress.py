"""Progress output of a waiting script whose standard streams are replaced, closed or missing."""

import asyncio
import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from awaithumans_core import await_human, await_human_sync
from awaithumans_core.progress import is_terminal
from awaithumans_core.testing import FakeHumans
from tests.support.workflows import Decision


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


def test_only_a_terminal_counts_as_one() -> None:
    """Every other replacement of a standard stream is not a terminal."""
    assert is_terminal(Broken())
    assert not any(is_terminal(make()) for name, make in STREAMS.items() if name != "a broken terminal")
