"""The code blocks, commands, links and anchors of the README and of every page of the site."""

import json
import re
import secrets
import shlex
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import typer
from langgraph.graph import START, StateGraph

from awaithumans_core import Outcome, Route, Settings, TargetGone
from awaithumans_core.testing import FakeHumans
from awaithumans_relay.cli import cli
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, code_spans, links, prose, python, run, text_of

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]
PARSERS = {"json": json.loads, "toml": tomllib.loads}
LANGUAGES = {"python", "bash", "text", *PARSERS}
"""What a block may contain. `text` is what a program prints, or a file that no test here can read."""


@pytest.fixture
def documented_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings of a caller and a relay, in a new folder."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "ADMIN_API_TOKEN": "t",
        "RELAY_SECRET": secrets.token_urlsafe(32),
        "PAYLOAD_KEY": secrets.token_urlsafe(32),
        "RELAY_URL": "http://localhost:8787",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_block_names_its_language_and_data_can_be_parsed(page: Path) -> None:
    """A block without a language, or one that is only indented, would be checked by no test."""
    assert [str(block) for block in blocks(page) if block.language not in LANGUAGES] == []
    assert re.findall(r"\n\n(?:    |\t)[^\n]*", prose(page)) == []
    for block in blocks(page):
        if parse := PARSERS.get(block.language):
            parse(block.text)


def test_readme_fits_a_screen() -> None:
    """The README has at most 150 lines, and its code fits into 80 columns."""
    readme = ROOT / "README.md"
    assert len(text_of(readme).splitlines()) <= 150
    assert [line for block in blocks(readme) for line in block.text.splitlines() if len(line) > 80] == []


@pytest.mark.usefixtures("documented_settings")
@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_block_runs(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each Python block runs by itself, with the documented settings and the files of its page."""
    monkeypatch.syspath_prepend(tmp_path)
    for file in blocks(block.page):
        if file.language == "python" and file.title and "/" not in file.title:
            (tmp_path / file.title).write_text(file.text)
            monkeypatch.delitem(sys.modules, file.title.removesuffix(".py"), raising=False)
    run(block)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    """The commands of this package, its targets, extras and modules are the real ones, with their options."""
    wrong = [
        f"{block}: {problem}"
        for block in blocks(page)
        if block.language == "bash"
        for line in block.text.replace("\\\n", " ").splitlines()
        if (problem := problem_of(shlex.split(line, comments=True)))
    ]
    assert wrong == []


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command line, if it is one that can be checked here."""
    match words:
        case ["awaithumans-relay", name, *rest]:
            return problem_of_relay_command(name, rest)
        case ["make", *targets]:
            known = re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
            unknown = [target for target in targets if "=" not in target and target not in known]
            return f"no target {unknown}" if unknown else None
        case ["pip", "install", *packages]:
            project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
            extras = {extra for package in packages for extra in re.findall(r"[\w-]+", package.partition("[")[2])}
            unknown_extras = extras - set(project["optional-dependencies"]) if packages[0].startswith(".") else set()
            return f"no extras {unknown_extras}" if unknown_extras else None
        case ["python" | "python3", "-m", module, *_]:
            return None if find_spec(module) else f"no module {module}"
        case _:
            return None


def problem_of_relay_command(name: str, rest: list[str]) -> str | None:
    """What is wrong with a call of `awaithumans-relay`."""
    commands = typer.main.get_group(cli).commands
    if name not in commands:
        return f"no command {name}"
    options = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in options]
    return f"{name} has no {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """Each relative link of a page names a file of the repository, and its anchor a heading of that page."""
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_files_and_tests_exist(page: Path) -> None:
    """Pages of the site name files outside of docs/ by their path, and test files by their name."""
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    wrong = []
    for span in code_spans(page):
        path, _, function = span.partition("::")
        if re.match(r"(tests|examples|benchmarks|docs)/", path):
            file = ROOT / path
            if not file.exists() or (function and f"def {function}(" not in file.read_text()):
                wrong.append(span)
        elif re.fullmatch(r"test_\w+", span) and span not in tests:
            wrong.append(span)
    assert wrong == []


@pytest.mark.parametrize("name", ["test_refund", "test_nobody_answers"])
def test_shown_tests_of_a_script_pass(name: str, fake_humans: FakeHumans) -> None:
    """The tests of the page about tests pass for the script of its page."""
    run(python("how-to/script.md")[0], python("how-to/test.md")[0])[name](fake_humans)


async def test_shown_group_decisions_run(fake_humans: FakeHumans) -> None:
    """Two of three approve a release, and without an answer of the person on call nothing is rolled back."""
    shown = run(python("how-to/several-people.md")[0])
    fake_humans.answer("Release", {"approved": True}).times(2)
    assert await shown["may_release"]("4.2", ["a@example.com", "b@example.com", "c@example.com"]) is True
    assert (await shown["on_call"]("disk full")).approved is False


async def test_shown_test_of_a_graph_passes() -> None:
    """The test of the page about tests passes for a graph of the node in the LangGraph page."""
    shown = run(python("how-to/langgraph.md")[0], python("how-to/test.md")[2])
    builder = StateGraph(shown["State"]).add_node("review", shown["review"]).add_edge(START, "review")
    await shown["test_refund_graph"](builder)


@pytest.mark.usefixtures("documented_settings")
async def test_shown_engine_delivers_and_refuses(tmp_path: Path) -> None:
    """The engine writes the answer for its caller, and reports a caller that no longer exists."""
    engine = run(*python("how-to/write-an-engine.md"))["FileEngine"]()
    inbox = tmp_path / "inbox.json"
    route = Route(engine="files", target={"file": str(inbox)}, idempotency_key="k")
    outcome = Outcome(task_id="t", status="completed", response={"approved": True})
    with pytest.raises(TargetGone):
        await engine.deliver(route, outcome)
    inbox.touch()
    await engine.deliver(route, outcome)
    assert json.loads(inbox.read_text())["response"] == {"approved": True}


@pytest.mark.usefixtures("documented_settings")
@pytest.mark.parametrize("number", [1, 2], ids=["mounted", "included late"])
async def test_shown_relay_starts_and_stops(number: int) -> None:
    """A relay inside another application runs as long as that application."""
    app = run(python("how-to/relay-in-your-app.md")[number])["app"]
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host")
    async with app.router.lifespan_context(app), client as http:
        assert (await http.get("/awaithumans/readyz")).status_code == 200


def test_every_setting_is_documented() -> None:
    """Each setting that the code reads is in the reference."""
    reference = text_of(ROOT / "docs/reference/settings.md")
    assert [name for name in Settings.model_fields if f"`AWAITHUMANS_{name.upper()}`" not in reference] == []
