"""The reference pages agree with the code."""

import ast
import importlib
import re
from collections import Counter

import pytest

from tests.docs.log_events import ROOT, SOURCES, events
from tests.docs.reference import PAGES, WRITTEN, updated

PUBLIC = ("awaithumans_core", "awaithumans_adapters.temporal", "awaithumans_adapters.langgraph", "awaithumans_relay")
VALUE = re.compile(r"%(?:%|[-+0-9.]*[a-z])")


def text_of(page: str) -> str:
    return (PAGES / f"{page}.md").read_text()


@pytest.mark.parametrize("page", WRITTEN)
def test_page_is_up_to_date(page: str) -> None:
    """What a page says about the code is what the code says. `make reference` writes it."""
    assert text_of(page) == updated(page)


def test_every_log_event_is_listed() -> None:
    """An event that is added, removed or worded anew changes the page."""
    listed = re.findall(r"^\| (debug|info|warning|error) \| `(.*?)` \| .+ \|$", text_of("log-events"), re.MULTILINE)
    in_code = {(level, VALUE.sub(lambda value: "%" if value[0] == "%%" else "...", text)) for level, text in events()}
    assert [event for event, count in Counter(listed).items() if count > 1] == []
    assert set(listed) == in_code


def test_every_logger_is_listed() -> None:
    """The name of each logger is public, since applications configure it."""
    source = "".join(path.read_text() for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    names = set(re.findall(r'safe_logger\(\s*"([\w.]+)"', source))
    assert names <= set(re.findall(r"^\| `(awaithumans[\w.]*)` \|", text_of("log-events"), re.MULTILINE))


def test_every_code_of_a_reply_is_listed() -> None:
    """The codes in the relay's replies are those of the table."""
    codes = set[str]()
    for path in (ROOT / "callback_relay").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "problem":
                codes.add(ast.unparse(call.args[1]))
    named = {ast.literal_eval(code) for code in codes if code.startswith("'")}
    of_errors = {"CALLBACK_REJECTED", "ENGINE_UNKNOWN", "STORE_UNAVAILABLE", "TOO_MANY_WAITS"}
    assert codes - {repr(code) for code in named} == {
        "CallbackRejectedError.code",
        "StoreUnavailableError.code",
        "refused.code",
    }
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", text_of("http"), re.MULTILINE)) == named | of_errors


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """A public name is documented in the reference, an error by the page of its code."""
    documented = re.findall(r"^::: ([\w.]+)$", text_of("api"), re.MULTILINE)
    package = importlib.import_module(module)
    for name in package.__all__:
        item = getattr(package, name)
        if not hasattr(item, "code"):
            assert f"{item.__module__}.{name}" in documented, name
