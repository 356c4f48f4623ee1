"""Errors that `awaithumans-relay serve` reports before it serves: one line with the remedy, no traceback."""

import asyncio
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
from devservers import Process
from typer.testing import CliRunner

from awaithumans_core import Outcome, Route
from awaithumans_core.secret_strength import MIN_SECRET_CHARS
from awaithumans_relay.cli import cli
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.dispatch.probe_engine import PROBE
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.store.readiness import PROBE_ENGINE

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = {
    "AWAITHUMANS_URL": "http://127.0.0.1:9",
    "AWAITHUMANS_ADMIN_API_TOKEN": "token",
    "AWAITHUMANS_RELAY_SECRET": secrets.token_urlsafe(32),
    "AWAITHUMANS_PAYLOAD_KEY": secrets.token_urlsafe(32),
    "AWAITHUMANS_RELAY_URL": "http://127.0.0.1:8787",
}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def taken() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def serve(*flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "awaithumans_relay.cli", "serve", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "database",
    [
        "sqlite:////nowhere/at/all/waits.db",
        "postgresql://me:hush-hush@127.0.0.1:1/waits",
        "postgresql://127.0.0.1:1/waits?user=me&password=hush-hush&sslpassword=hush",
    ],
)
def test_unreachable_store_ends_serve_with_its_own_exit_code(database: str) -> None:
    """The line shows no password, and the exit code differs from that of wrong settings, as a restart may help."""
    code, told = serve("--temporal", "127.0.0.1:9", "--database", database)
    assert (code, len(told.splitlines())) == (3, 1), told
    assert "is unreachable" in told
    assert ("Create its folder" in told) == database.startswith("sqlite")  # a file cannot be started
    assert "hush" not in told


def test_port_in_use_is_reported_before_the_start(taken: int) -> None:
    """The error replaces the line that the relay has started."""
    code, told = serve("--temporal", "127.0.0.1:9", "--port", str(taken))
    assert (code, len(told.splitlines())) == (3, 1), told
    assert f"cannot listen on 127.0.0.1:{taken}" in told


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:xx", "localhost:", "localhost:0", "localhost:70000", ":7233"]
)
def test_impossible_port_is_refused(address: str) -> None:
    """An impossible port is refused at the start and not at the first delivery."""
    done = CliRunner().invoke(cli, ["serve", "--temporal", address])
    assert (done.exit_code, "write it as host:port" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("foo=json:dumps", "dumps() fails (TypeError"),
        ("foo=json:__doc__", "not a compiled graph"),
        ("foo=no.mod:x", "--graph foo=no.mod:x: No module named"),
    ],
)
def test_unusable_graph_is_reported_with_the_flag_and_the_reason(spec: str, told: str) -> None:
    """The flag is shown as given, without interpreting markup or emoji codes in it."""
    done = CliRunner().invoke(cli, ["serve", "--graph", spec])
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert not isinstance(done.exception, TypeError)


def test_all_missing_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run reports every missing setting."""
    for name in ("ADMIN_API_TOKEN", "RELAY_SECRET", "PAYLOAD_KEY"):
        monkeypatch.delenv(f"AWAITHUMANS_{name}")
    monkeypatch.setenv("AWAITHUMANS_RELAY_OPERATOR_TOKEN", "short")
    done = CliRunner().invoke(cli, ["serve", "--temporal", "127.0.0.1:9"])
    assert done.exit_code == 2
    for name in ("ADMIN_API_TOKEN", "RELAY_SECRET", "WEBHOOK_KEY", "RELAY_OPERATOR_TOKEN"):
        assert f"AWAITHUMANS_{name}" in done.stderr
    assert "api_key" not in done.stderr  # the command line has no option for it


@pytest.mark.parametrize(
    ("flags", "told"),
    [([], "no engine"), (["--graph", "refunds=my_app:graph"], "AWAITHUMANS_RELAY_URL is not set")],
)
def test_settings_that_flags_need_are_reported_with_the_others(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], told: str
) -> None:
    """Settings that only a flag needs are part of the same report."""
    monkeypatch.delenv("AWAITHUMANS_RELAY_SECRET")
    monkeypatch.delenv("AWAITHUMANS_RELAY_URL")
    done = CliRunner().invoke(cli, ["serve", *flags])
    assert done.exit_code == 2
    assert "AWAITHUMANS_RELAY_SECRET is not set" in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("command", ["", "dev", "serve", "waits", "redrive", "derive-key", "doctor", "init"])
def test_help_fits_80_columns(command: str) -> None:
    """Tables and examples keep their layout at 80 columns."""
    told = CliRunner().invoke(cli, [*command.split(), "--help"], env={"COLUMNS": "80"}).output
    lines = {line.strip() for line in told.splitlines()}
    known = [*cli.registered_commands, cli.registered_callback]
    (made,) = [
        each.callback for each in known if each and each.callback and _named(each.callback) == (command or "relay")
    ]
    written = [
        line for block in (made.__doc__ or "").split("\b\n")[1:] for line in block.partition("\n\n")[0].splitlines()
    ]
    assert [line for line in written if line.strip() not in lines] == []


def _named(command: Callable[..., object]) -> str:
    return command.__name__.replace("_", "-")


def test_version_is_that_of_the_distribution() -> None:
    """`--version` prints the version of the distribution."""
    done = CliRunner().invoke(cli, ["--version"])
    assert (done.exit_code, done.output) == (0, f"awaithumans-relay {version('awaithumans-workflows')}\n")


def test_help_names_every_setting_and_both_databases() -> None:
    """The help lists every setting and both databases."""
    told = CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "80"}).output
    settings = (ROOT / "examples/deploy/relay.env.example").read_text().splitlines()
    named = {line.partition("=")[0] for line in settings if line and not line.startswith("#")}
    assert len(named) > 5
    forms = {"postgresql://USER:PASSWORD@HOST/NAME", "sqlite:///FILE", "AWAITHUMANS_RELAY_DATABASE"}
    assert {each for each in named | forms if each not in told} == set()


def test_help_states_the_checked_length_of_secrets() -> None:
    """The help states the same minimum length for secret and operator token that is checked."""
    told = " ".join(CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "80"}).output.split())
    assert re.findall(r"\((\d+) characters", told) == [str(MIN_SECRET_CHARS)] * 2


def _days_ago(days: int) -> float:
    return time.time() - days * 86400


@pytest.mark.edges
async def test_retention_days_delete_older_delivered_waits(tmp_path: Path) -> None:
    """A delivered wait older than the given days is deleted, and a younger one is kept."""
    database, ages = f"sqlite:///{tmp_path / 'waits.db'}", {"older": 3, "younger": 1}
    for task_id, days in ages.items():
        store = Store(database, clock=partial(_days_ago, days))
        await store.start()
        route = Route(PROBE_ENGINE, {}, task_id)
        await store.intake.register(task_id, route, 60)
        await store.intake.answer(
            Outcome(task_id=task_id, idempotency_key=task_id, status="completed", response={}),
            found_by="callback",
            route=route,
        )
        async with Dispatcher(store.leases, {PROBE_ENGINE: PROBE}).running():
            while [wait.state for wait in await store.queries.find(task_id)] != [WaitState.DELIVERED]:
                await asyncio.sleep(0.01)
        await store.stop()
    flags = ["--temporal", "127.0.0.1:9", "--port", "0", "--database", database, "--retention-days", "2"]
    relay = Process([sys.executable, "-m", "awaithumans_relay.cli", "serve", *flags], tmp_path, SETTINGS)
    relay.start()
    try:
        store = Store(database)
        await store.start()
        async with asyncio.timeout(60):
            while await store.queries.find("older"):
                await asyncio.sleep(0.05)
        assert [wait.state for wait in await store.queries.find("younger")] == [WaitState.DELIVERED]
        await store.stop()
    finally:
        relay.stop()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--temporal-namespace", "payments"], "add --temporal ADDRESS"),
        (["serve", "--temporal", "t:1", "--temporal-namespace", ""], "give a list of names"),
        (["serve", "--temporal", "t:1", "--retention-days", "0"], "greater than or equal to 1"),
        (["serve", "--temporal", "t:1", "--ssl-keyfile", "key.pem"], "add --ssl-certfile"),
        (["redrive", "task-1", "--all"], "not both"),
        (["serve", "--temporal", "t:1", "--database", "mysql://me:hush-hush@h/d"], "no other kind is known"),
        (["waits", "--database", "mysql://me:hush-hush@h/d"], "no other kind is known"),
        (["redrive", "--all", "--yes", "--database", "mysql://me:hush-hush@h/d"], "no other kind is known"),
        (["serve", "--temporal", "t:1", "--database", "nonsense"], "not a database URL"),
        (["serve", "--temporal", "t:1", "--database", "postgresql://me:hush-hush@h:port/d"], "not a database URL"),
        (["serve", "--temporal", "t:1", "--database", "postgresql://me:pass@hush-hush@h/d"], "%40"),
        (["waits", "--database", "postgresql://me:pass@hush-hush@h/d"], "%40"),
        (["serve", "--temporal", "t:1", "--database", "sqlite://"], "names no file"),
        (["serve", "--temporal", "t:1", "--log-level", "warn"], "not one of debug, info, warning"),
    ],
)
def test_conflicting_flags_are_refused(arguments: list[str], told: str) -> None:
    """The message states what to change and shows no password."""
    done = CliRunner().invoke(cli, arguments, env={"COLUMNS": "200"})
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert "hush" not in done.output


def test_start_line_names_version_engines_and_database(tmp_path: Path) -> None:
    """One line at the start also reports that no operator token is set."""
    command = [sys.executable, "-m", "awaithumans_relay.cli", "serve", "--temporal", "127.0.0.1:9", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            first = process.stderr.readline()
        finally:
            process.terminate()
            process.communicate(timeout=30)
    released = version("awaithumans-workflows")
    assert f"relay {released}; engines: temporal; waits in sqlite:///" in first
    assert first.rstrip().endswith("operator's page: off")


@pytest.mark.parametrize(
    ("extra", "flags"),
    [("temporal", ["--temporal", "t:1"]), ("langgraph", ["--langgraph-server", "http://127.0.0.1:9"])],
)
def test_missing_extra_is_reported_with_the_install_command(extra: str, flags: list[str]) -> None:
    """The exit code is that of a mistake, so that a service manager does not restart the unit."""
    package = {"temporal": "temporalio"}.get(extra, extra)
    without = f"import sys; sys.modules[{package!r}] = None; from awaithumans_relay.cli import main; main()"
    command = [sys.executable, "-c", without, "serve", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"awaithumans-workflows[{extra}]" in done.stderr


def test_malformed_certificate_is_reported_before_the_start(tmp_path: Path) -> None:
    """One line without a traceback is printed before the relay reports that it has started."""
    (tmp_path / "none.pem").write_text("no certificate")
    code, told = serve("--temporal", "t:1", "--port", "0", "--ssl-certfile", "none.pem", "--ssl-keyfile", "none.pem")
    assert (code, len(told.splitlines())) == (2, 1), told
    assert "--ssl-certfile" in told
