"""The examples of the README run."""

import re
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.graph import START, StateGraph

from awaithumans_core.testing import FakeHumans

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


NAMES = [
    *("temporal", "combine", "langgraph", "except", "engine", "thread", "langchain", "interrupts", "script", "many"),
    "units",
    *("relay", "mounted", "included late", "testing", "testing workflows", "testing graphs"),
]


def test_readme_blocks_are_found() -> None:
    """The pattern finds the blocks of the callers, the relay and the tests."""
    assert len(BLOCKS) == len(NAMES)


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_readme_block_runs(block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each Python block runs with the documented settings alone."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "ADMIN_API_TOKEN": "t",
        "RELAY_SECRET": secrets.token_urlsafe(32),
        "PAYLOAD_KEY": secrets.token_urlsafe(32),
        "RELAY_URL": "http://localhost:8787",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102


@pytest.mark.parametrize("name", ["test_refund", "test_nobody_answers"])
def test_readme_tests_pass(name: str, fake_humans: FakeHumans) -> None:
    """The tests of the testing section pass for the script of the script section."""
    shown: dict[str, Any] = {"__name__": "readme"}
    for section in ("script", "testing"):
        exec(compile(BLOCKS[NAMES.index(section)], "README.md", "exec"), shown)  # noqa: S102
    shown[name](fake_humans)


async def test_readme_group_decisions_run(fake_humans: FakeHumans) -> None:
    """Two of three approve a release, and without an answer of the person on call nothing is rolled back."""
    shown: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[NAMES.index("combine")], "README.md", "exec"), shown)  # noqa: S102
    fake_humans.answer("Release", {"approved": True}).times(2)
    assert await shown["may_release"]("4.2", ["a@example.com", "b@example.com", "c@example.com"]) is True
    assert (await shown["on_call"]("disk full")).approved is False


async def test_readme_test_of_a_graph_passes() -> None:
    """The test of the testing section passes for a graph of the node in the LangGraph section."""
    shown: dict[str, Any] = {"__name__": "readme"}
    for section in ("langgraph", "testing graphs"):
        exec(compile(BLOCKS[NAMES.index(section)], "README.md", "exec"), shown)  # noqa: S102
    builder = StateGraph(shown["State"]).add_node("review", shown["review"]).add_edge(START, "review")
    await shown["test_refund_graph"](builder)


@pytest.mark.parametrize("name", ["mounted", "included late"])
async def test_readme_relay_starts_and_stops(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relay inside another application runs as long as that application."""
    monkeypatch.chdir(tmp_path)
    settings = {"ADMIN_API_TOKEN": "t"}
    settings |= {name: secrets.token_urlsafe(32) for name in ("RELAY_SECRET", "PAYLOAD_KEY")}
    for setting, value in settings.items():
        monkeypatch.setenv(f"AWAITHUMANS_{setting}", value)
    shown: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[NAMES.index(name)], "README.md", "exec"), shown)  # noqa: S102
    app = shown["app"]
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host")
    async with app.router.lifespan_context(app), client as http:
        assert (await http.get("/awaithumans/readyz")).status_code == 200


def test_every_setting_is_documented() -> None:
    """Each setting that the code reads is in the README's table."""
    from awaithumans_core import Settings

    for name in Settings.model_fields:
        assert f"`AWAITHUMANS_{name.upper()}`" in README
