"""The pages of error codes: one for each code, true to the classes, with examples that run and print what they show."""

import asyncio
import inspect
import re
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from awaithumans_adapters.temporal.failures import not_asked
from awaithumans_core import Outcome, Route, Settings
from awaithumans_core.declared_facts import declared_facts
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.testing import FakeHumans
from awaithumans_relay import create_app
from awaithumans_relay.store.errors import StoreUnavailableError
from awaithumans_relay.store.waits.intake import MAX_OPEN_WAITS
from awaithumans_relay.web.problem import Problem
from tests.docs.reference import field_docs
from tests.unit.test_errors import FAMILY

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference" / "errors"
KINDS: dict[str, type[Exception]] = {kind.code: kind for kind in FAMILY} | {
    StoreUnavailableError.code: StoreUnavailableError
}
SECTIONS = ["What happened", "Why", "What to do", "Example"]
ANYTHING = "..."
"""Stands in the shown text for what differs from run to run."""


def page(code: str) -> str:
    """The text of a page; empty if there is none, so that the tests report it."""
    path = PAGES / f"{code}.md"
    return path.read_text() if path.exists() else ""


def blocks(code: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(code), re.DOTALL)


def matches(shown: str, got: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.strip().split(ANYTHING))), got.strip(), re.DOTALL) is not None


def facts() -> dict[str, str]:
    """The facts of all errors, with what the classes say about them."""
    found: dict[str, str] = {}
    for kind in FAMILY:
        for name, text in field_docs(kind).items():
            found[name] = text if name not in found else f"{found[name]} For `{kind.__name__}`: {text}"
    declared = {fact.name for kind in FAMILY for fact in declared_facts(kind)}
    return {name: text for name, text in found.items() if name in declared}


every_code = pytest.mark.parametrize("code", sorted(KINDS))
in_python = pytest.mark.parametrize("code", sorted(code for code in KINDS if blocks(code, "python")))


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    """A reader finds the page of a code by its name, and no page describes a code that does not exist."""
    assert {path.stem for path in PAGES.glob("*.md")} - {"index"} == KINDS.keys()


@every_code
def test_page_names_class_summary_and_facts(code: str) -> None:
    """The head of a page is what the class says about itself."""
    kind = KINDS[code]
    summary = (kind.__doc__ or "").splitlines()[0]
    facts = [fact.name for fact in declared_facts(kind)] if issubclass(kind, AwaitHumansError) else []
    head = [f"# {code}", f"`{kind.__module__}.{kind.__name__}`: {summary}"]
    if facts:
        head.append(f"Facts: {', '.join(f'`{fact}`' for fact in facts)}.")
    assert page(code).startswith("\n\n".join([*head, "## "]))


@every_code
def test_page_has_all_sections_and_an_example(code: str) -> None:
    """What happened, why, what to do, and an example: in this order, and none of them empty."""
    parts = re.split(r"^## (.*)\n", page(code), flags=re.MULTILINE)
    assert parts[1::2] == SECTIONS
    assert all(text.strip() for text in parts[2::2])
    assert blocks(code, "python") or blocks(code, "json")


@every_code
def test_index_lists_the_code(code: str) -> None:
    """The list has a line for each code, with the class and its summary."""
    kind = KINDS[code]
    summary = (kind.__doc__ or "").splitlines()[0]
    assert f"| [{code}]({code}.md) | `{kind.__name__}` | {summary} |" in page("index").splitlines()


def test_index_lists_no_other_code() -> None:
    """A code that no longer exists leaves the list."""
    assert set(re.findall(r"^\| \[(\w+)\]", page("index"), re.MULTILINE)) == KINDS.keys()


def test_index_explains_every_fact() -> None:
    """A fact that a page names is explained in the list, in the words of the class."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page("index"), re.MULTILINE)
    assert dict(rows) == facts()
    assert facts().keys() == {fact.name for kind in FAMILY for fact in declared_facts(kind)}


@in_python
def test_example_runs_and_prints_what_the_page_shows(
    code: str, fake_humans: FakeHumans, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tests in the example pass, and the text on the page is what it prints."""
    shown: dict[str, Any] = {"__name__": code}
    for block in blocks(code, "python"):
        exec(compile(block, f"{code}.md", "exec"), shown)  # noqa: S102
    tests = [value for name, value in shown.items() if name.startswith("test_")]
    for test in tests:
        given = {"fake_humans": fake_humans} if "fake_humans" in inspect.signature(test).parameters else {}
        if inspect.iscoroutine(result := test(**given)):
            asyncio.run(result)
    if code == "QUESTION_NOT_ASKED":  # raised in a workflow, whose server would take seconds to start
        print(not_asked("refund:A-1042", 900, "server or relay were unreachable until then"))
    else:
        assert tests
    [text] = blocks(code, "text")
    printed = capsys.readouterr().out
    assert matches(text, printed), printed


class Graphs:
    """An engine that wakes nothing."""

    name = "langgraph"

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Take every outcome."""


async def refusals(database: Path) -> dict[str, httpx.Response]:
    """Return what a relay replies to requests that it refuses, by the code that the reply is to have."""
    keys = {name: secrets.token_urlsafe(32) for name in ("relay_secret", "payload_key")}
    settings = Settings.load(url="http://127.0.0.1:9", admin_api_token="t", relay_url="http://127.0.0.1:9", **keys)
    app = create_app([Graphs()], settings=settings, database=f"sqlite:///{database}")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay")

    async def register(engine: str, task_id: str) -> httpx.Response:
        proof = settings.signer().prove(Route(engine, {"job": "7"}, "refund:7"), task_id)
        headers = {"Authorization": f"Bearer {proof}"}
        return await http.put(f"/waits/{task_id}", json={"timeout_seconds": 900}, headers=headers)

    async with app.router.lifespan_context(app), client as http:
        refused = {
            "CALLBACK_REJECTED": await http.post("/callbacks/unsigned", content=b"{}"),
            "ENGINE_UNKNOWN": await register("temporal", "task-0"),
        }
        for number in range(MAX_OPEN_WAITS):
            assert (await register("langgraph", f"task-{number}")).is_success
        refused["TOO_MANY_WAITS"] = await register("langgraph", f"task-{MAX_OPEN_WAITS}")
        with closing(sqlite3.connect(database)) as other:
            other.execute("ALTER TABLE waits RENAME TO lost")
        refused["STORE_UNAVAILABLE"] = await register("langgraph", "task-0")
    return refused


def test_reply_on_the_page_is_the_reply_of_a_relay(tmp_path: Path) -> None:
    """Codes of the relay are shown as the body that a caller or the server receives."""
    refused = asyncio.run(refusals(tmp_path / "waits.db"))
    assert refused.keys() == {code for code in KINDS if blocks(code, "json")}
    for code, reply in refused.items():
        [block] = blocks(code, "json")
        shown = Problem.model_validate_json(block)
        assert reply.json()["error"] == shown.error == code
        assert matches(shown.message, reply.json()["message"]), reply.text
