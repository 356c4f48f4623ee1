"""Every output of foreign text: what becomes of an attacker's text, and that no output is missed."""

import ast
import importlib
import io
import logging
import pkgutil
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from langgraph.types import Interrupt
from rich.console import Console

import awaithumans_adapters
import awaithumans_core
import awaithumans_relay
from awaithumans_adapters.langgraph.unmodified.interrupt_question import question_of
from awaithumans_adapters.temporal.limits import SUMMARY_BYTES, summary
from awaithumans_core import HumanTask, Outcome, SettingsError, errors
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import Pause
from awaithumans_core.progress import BatchProgress, PlainProgress, Progress
from awaithumans_core.progress.live import LiveBatchProgress, LiveProgress
from awaithumans_core.progress.plain import PlainBatchProgress
from awaithumans_core.safe_logging import SafeText, safe_logger
from awaithumans_core.settings import Settings
from awaithumans_relay.commands.terminal import errors_reported
from awaithumans_relay.monitoring.logs import JsonFormatter, LogFormat, TextFormatter, configure
from tests.support.decisions import Decision
from tests.support.hostile import ALL, ATTACKS, FORGED, hidden

SOURCES = [
    Path(package.__file__ or "").parent for package in (awaithumans_core, awaithumans_adapters, awaithumans_relay)
]
EXAMPLES = Path(__file__).parents[2] / "examples" / "demo"

NOT_BROKEN = {name: text for name, text in ATTACKS.items() if name != "lone surrogate"}
"""JSON, and therefore a task, cannot contain that one."""

each_attack = pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)


# --- logs


class Lines(logging.StreamHandler[io.StringIO]):
    """Capture what an application's log shows."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(formatter)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture(params=["an application's", "text", "json"])
def log(request: pytest.FixtureRequest) -> Generator[Lines]:
    """A root logger that is formatted as by an application or by the relay."""
    of_application = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    formatters = {"an application's": of_application, "text": TextFormatter(), "json": JsonFormatter()}
    lines = Lines(formatters[request.param])
    logging.getLogger().addHandler(lines)
    yield lines
    logging.getLogger().removeHandler(lines)


def fails(text: str) -> None:
    """Raise the error of a node or an engine."""
    raise RuntimeError(text)


@each_attack
def test_log_lines_cannot_be_forged(log: Lines, text: str) -> None:
    """An attacker's text in an argument, error or traceback adds no line and no terminal command."""
    logger = safe_logger("awaithumans.langgraph")
    logger.warning("parked task %s: %s", "t1", text)
    logger.error("engine %(name)s failed: %(error)s", {"name": "shelf", "error": ValueError(text)})
    logger.error(f"task {text}")
    try:
        fails(text)
    except RuntimeError:
        logger.exception("graph failed")
    assert hidden(log.text, allowed="\n") == set()
    assert not any(line.startswith(FORGED) for line in log.text.splitlines())
    starts = [line for line in log.text.splitlines() if not line.startswith(" ")]
    assert len(starts) == 4


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
@each_attack
def test_library_records_cannot_forge_lines_of_the_relay_log(formatter: logging.Formatter, text: str) -> None:
    """The relay's formatter sanitizes every record, including those of libraries without the filter."""
    handler = Lines(formatter)
    logger = logging.Logger("some.library")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    try:
        fails(text)
    except RuntimeError:
        logger.exception("%s", text, stack_info=True, extra={"wait_id": text})
    assert hidden(handler.text, allowed="\n") == set()
    assert len([line for line in handler.text.splitlines() if not line.startswith(" ")]) == 1


def test_harmless_log_records_are_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers that group by message or read arguments get what was logged."""
    error = ValueError("no")
    logging.getLogger("awaithumans").warning("%s failed after %.1f s: %s", "é", 1.5, error)
    assert caplog.records[-1].msg == "%s failed after %.1f s: %s"
    assert caplog.records[-1].args == ("é", 1.5, error)


class Unreadable:
    """An argument whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_unprintable_log_argument_does_not_raise() -> None:
    """The handler reports the failure, and logging never raises."""
    record = logging.makeLogRecord({"msg": "%s", "args": (Unreadable(),)})
    assert SafeText().filter(record)


# --- the terminal


BROUGHT = Outcome.model_validate({"task_id": ALL, "status": ALL, "idempotency_key": ALL})
ENDED = BROUGHT.model_copy(
    update={"status": "completed", "completed_by_display_name": ALL, "completed_via_channel": ALL}
)
REPORTS: list[Callable[[Progress], object]] = [
    lambda progress: progress.asks(progress.asked),
    lambda progress: progress.left_open(),
    lambda progress: progress.tell(BROUGHT),
    lambda progress: progress.trouble(Pause(1.0, ALL)),
    lambda progress: progress.trouble(Pause(1.0, ALL, missing=True)),
    lambda progress: progress.left_open(),
    lambda progress: progress.withdrawn(None),
    lambda progress: progress.withdrawn(BROUGHT),
    lambda progress: progress.ends(ENDED),
]
"""All calls of a progress reporter."""


@pytest.mark.parametrize("kind", [PlainProgress, LiveProgress])
def test_progress_shows_no_hidden_characters(kind: type[Progress], capsys: pytest.CaptureFixture[str]) -> None:
    """Foreign names, states, reasons and keys stay in their line, in live and plain output."""
    question = HumanTask(task="Approve?", response_schema=Decision, idempotency_key="".join(NOT_BROKEN.values()))
    progress = kind(question, Settings(url="http://localhost"))
    shown = io.StringIO()
    for report in REPORTS:
        report(progress)
        if isinstance(progress, LiveProgress):
            Console(file=shown, width=10_000, color_system=None).print(progress.lines(10_000))
    written = capsys.readouterr().err
    assert written.count("awaithumans: ") >= 4
    assert all(line.startswith("awaithumans: ") for line in written.splitlines())
    assert hidden(written + shown.getvalue(), allowed="\n") == set()


@pytest.mark.parametrize("kind", [PlainBatchProgress, LiveBatchProgress])
def test_progress_of_a_batch_shows_no_hidden_characters(
    kind: type[BatchProgress], capsys: pytest.CaptureFixture[str]
) -> None:
    """Foreign task ids and keys stay in their line, in live and plain output."""
    asked = HumanTask(task="Approve?", response_schema=Decision, idempotency_key="".join(NOT_BROKEN.values()))
    progress = kind([asked], Settings(url="http://localhost"))
    shown = io.StringIO()
    progress.opened(0, asked, BROUGHT)
    if isinstance(progress, LiveBatchProgress):
        Console(file=shown, width=10_000, color_system=None).print(progress.lines(10_000))
    progress.left_open()
    written = capsys.readouterr().err
    assert written.startswith("awaithumans: ")
    assert hidden(written + shown.getvalue(), allowed="\n") == set()


@each_attack
def test_command_error_shows_no_hidden_characters(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The errors of `serve`, `waits` and the other commands cannot control the terminal."""
    with pytest.raises(typer.Exit), errors_reported():
        raise SettingsError(f"--graph {text}: no such graph")
    assert hidden(capsys.readouterr().err, allowed="\n") == set()


# --- errors


def kinds(base: type[AwaitHumansError]) -> set[type[AwaitHumansError]]:
    return {base}.union(*(kinds(each) for each in base.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(kinds(AwaitHumansError), key=str))
def test_errors_show_no_hidden_characters(kind: type[AwaitHumansError]) -> None:
    """A message that quotes a question, an answer or a reply is safe to show and limited in length."""
    assert hidden(str(kind(f"it is {ALL}")), allowed="\n") == set()
    assert len(kind("x" * 1_000_000).text) <= 20_000
    if not issubclass(kind, SettingsError):
        assert "\n" not in str(kind(ALL))


def test_only_settings_errors_have_several_lines() -> None:
    """They contain what an operator has written, with a line for each setting."""
    assert SettingsError("one\ntwo").text == "one\ntwo"
    assert errors.TaskRejectedError("one\ntwo").text == r"one\ntwo"


# --- questions made from a model's text


@pytest.mark.parametrize("text", NOT_BROKEN.values(), ids=NOT_BROKEN)
def test_interrupt_text_becomes_one_line(text: str) -> None:
    """The question shows the text in one line, and the payload keeps it unchanged."""
    value = f"Approve? {text}"
    for shown in (value, {"question": value}, {"message": value}):
        asked = question_of(Interrupt(shown))
        question = HumanTask(task=asked.task, payload=asked.payload, response_schema=asked.response_schema)
        assert question.task.startswith("Approve? ")
        assert value in asked.payload.values()


def test_long_interrupt_text_is_shortened() -> None:
    """The question fits its limit, and the payload has the whole text."""
    asked = question_of(Interrupt("word " * 1000))
    HumanTask(task=asked.task, payload=asked.payload, response_schema=asked.response_schema)
    assert len(asked.task) == 500
    assert asked.payload == {"value": "word " * 1000}


def test_short_interrupt_has_no_payload() -> None:
    """A text that the question shows completely is not shown twice."""
    assert question_of(Interrupt(" Approve? ")).payload is None


@pytest.mark.parametrize("name", ["".join(NOT_BROKEN.values()), "x" * 1000], ids=["hostile", "long"])
def test_tool_name_becomes_one_line(name: str) -> None:
    """Tool calls of another middleware are asked about whatever the tool's name is."""
    request = {"name": name, "args": {"amount": 250}}
    allowed = {"action_name": name, "allowed_decisions": ["approve", "reject"]}
    asked = question_of(Interrupt({"action_requests": [request], "review_configs": [allowed]}))
    question = HumanTask(task=asked.task, payload=asked.payload, response_schema=asked.response_schema)
    assert question.task.startswith("May the agent run ")


# --- Temporal


@pytest.mark.parametrize("text", [ALL, "`" * 1000, "漢" * 1000, "[a](b)" * 1000, "x" * 1000])
def test_temporal_summary_is_limited_and_escaped(text: str) -> None:
    """Temporal refuses a longer summary and renders it as Markdown."""
    assert len(summary(text).encode()) <= SUMMARY_BYTES
    assert hidden(summary(text)) == set()


# --- no output is missed


def modules() -> Iterator[ModuleType]:
    for package in (awaithumans_core, awaithumans_adapters, awaithumans_relay):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


def test_every_logger_has_the_filter() -> None:
    """This test finds a new module that gets its logger from the standard library directly."""
    found = {
        (module.__name__, value.name): any(isinstance(each, SafeText) for each in value.filters)
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, logging.Logger)
    }
    assert len(found) > 20
    assert [place for place, safe in found.items() if not safe] == []


OUTPUTS = {
    # an output of text: how foreign text is made safe there
    "core/progress/plain.py write_line sys.stderr.write": "one_line",
    "core/progress/block.py Block.end Text": "one_line",
    "core/progress/block.py Block._print self._console.print": "its callers, end and say",
    "core/progress/block.py Block._render Text": "a number",
    "core/progress/live.py _trouble_lines Text": "one_line",
    "core/progress/live.py LiveProgress._shown_lines Text": "one_line",
    "core/progress/live.py LiveProgress._shown_lines Text.assemble": "one_line",
    "core/progress/live.py LiveBatchProgress._shown_lines Text.assemble": "numbers",
    "core/progress/live.py _link Text": "one_line",
    "relay/dev/screen.py Screen.event Text": "one_line",
    "relay/dev/screen.py Screen.event Text.assemble": "one_line",
    "relay/dev/screen.py Screen.event self._console.print": "one_line",
    "relay/dev/screen.py Screen.table Text": "one_line",
    "relay/dev/screen.py Screen.table self._console.print": "one_line",
    "relay/dev/screen.py Screen.plain Text": "its callers: one_line, block, or a text of ours",
    "relay/dev/screen.py Screen.plain self._console.print": "its callers: one_line, block, or a text of ours",
    "relay/cli.py init typer.echo": "the path that the user gave",
    "adapters/temporal/workflow/mailbox.py Mailbox.receive workflow.logger.warning": "a constant",
    "adapters/temporal/workflow/mailbox.py Mailbox.inherit workflow.logger.warning": "a type error's own repr",
    "adapters/temporal/workflow/mailbox.py Mailbox.joined workflow.logger.warning": "one_line",
    "adapters/temporal/workflow/activity_mode.py wait_for_activity workflow.logger.warning": "a constant",
    "adapters/temporal/workflow/mailbox.py Mailbox._publish workflow.set_current_details": "markdown, each text in it",
    "adapters/temporal/workflow/signal_mode.py _open summary=": "summary",
    "adapters/temporal/workflow/signal_mode.py wait_for_signal timeout_summary=": "a constant",
    "adapters/temporal/workflow/signal_mode.py _last_look summary=": "a constant",
    "adapters/temporal/workflow/signal_mode.py freeing summary=": "a constant",
    "adapters/temporal/workflow/signal_mode.py _log_failure workflow.logger.warning": "one_line",
    "adapters/temporal/workflow/activity_mode.py _wait_once summary=": "summary",
    "relay/cli.py _print_version typer.echo": "a version",
    "relay/cli.py derive_key typer.echo": "keys",
    "relay/commands/doctor.py examine print": "JSON in ASCII",
    "relay/commands/doctor.py _print Text": "block",
    "relay/commands/doctor.py _print Text.assemble": "names of checks",
    "relay/commands/doctor.py _print console.print": "the texts above",
    "relay/commands/redrive.py redrive console.print": "one_line, repr",
    "relay/commands/terminal.py errors_reported Text.assemble": "block",
    "relay/commands/terminal.py errors_reported Console(stderr=True, soft_wrap=True).print": "the text above",
    "relay/commands/waits.py show print": "JSON in ASCII",
    "relay/commands/waits.py show console.print": "the table, repr",
    "relay/commands/waits.py _table Text": "one_line",
    "relay/commands/waits.py _table Text.assemble": "one_line",
    "demo/__main__.py main sys.stderr.write": "a constant",
    "demo/__main__.py play timeline.console.print": "block",
    "demo/stage.py Timeline.scene self.console.print": "constants",
    "demo/stage.py Timeline.tell self.console.print": "one_line",
}


class Places(ast.NodeVisitor):
    """Collect the calls of a module that show text on a terminal, in a foreign log or in the Temporal UI."""

    SHOWS = re.compile(
        r"(.*\.)?(print|echo|secho|std(err|out)\.write|Text(\.assemble)?|Panel|set_current_details|logger\.\w+)"
    )
    OWN_LOGGER = re.compile(r"logger\.\w+|.*\.getLogger.*")

    def __init__(self, file: str) -> None:
        self.file = file
        self.within: list[str] = []
        self.found: set[str] = set()

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func)
        if self.SHOWS.fullmatch(called) and not self.OWN_LOGGER.fullmatch(called):
            self.found.add(f"{self.file} {'.'.join(self.within)} {called}")
        for keyword in node.keywords:
            if keyword.arg in ("summary", "static_summary", "static_details", "timeout_summary"):
                self.found.add(f"{self.file} {'.'.join(self.within)} {keyword.arg}=")
        self.generic_visit(node)

    def _scope(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.within.append(node.name)
        self.generic_visit(node)
        self.within.pop()

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _scope  # noqa: N815 - the standard library's names


def test_every_output_of_text_is_listed() -> None:
    """This test finds a new print, log, page or summary, which is listed above once its text is safe."""
    found: set[str] = set()
    for folder in (*SOURCES, EXAMPLES):
        for file in folder.rglob("*.py"):
            places = Places(f"{folder.name.removeprefix('awaithumans_')}/{file.relative_to(folder)}")
            places.visit(ast.parse(file.read_text()))
            found |= places.found
    assert found == OUTPUTS.keys()


def test_relay_log_uses_the_tested_formatters() -> None:
    """The tests above are valid for the relay's process."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        for log_format, kind in ((LogFormat.TEXT, TextFormatter), (LogFormat.JSON, JsonFormatter)):
            configure("info", log_format)
            (handler,) = root.handlers
            assert isinstance(handler.formatter, kind)
            root.handlers.clear()
    finally:
        root.handlers[:], root.level = before, level
