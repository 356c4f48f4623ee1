"""The operator's commands that read a relay's database: `waits`, `redrive` and `derive-key`."""

import asyncio
import json
import os
import secrets
import sqlite3
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from awaithumans_core import Outcome, Route, TargetGone
from awaithumans_core.signing import KeyRing, derive_webhook_key, sign
from awaithumans_relay.cli import cli
from awaithumans_relay.store import Store
from tests.support import hostile
from tests.support.engines import CollectingEngine
from tests.support.postgres import PostgresServer
from tests.support.relay import Server, running_relay
from tests.support.servers import FakeServer

SETTINGS = {
    "RELAY_URL": "http://localhost:8787",
    "RELAY_SECRET": secrets.token_urlsafe(32),
    "ADMIN_API_TOKEN": "token",
    "PAYLOAD_KEY": secrets.token_urlsafe(32),
}
HOSTILE = (
    "[bold]not markup[/bold] " + hostile.ALL.replace("\x00", "").replace("\ud800", "") + "x" * 500
)  # characters that a database can store


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments))


@pytest.fixture(params=["sqlite", "postgres"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Store]:
    """Yield a store with one open and two parked waits, of two engines, that the environment names."""
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if request.param == "postgres" else None
    url = postgres.database() if postgres else f"sqlite:///{tmp_path / 'waits.db'}"
    monkeypatch.setenv("AWAITHUMANS_RELAY_DATABASE", url)
    monkeypatch.setenv("COLUMNS", "80")
    store = Store(url)
    await store.start()
    await store.intake.register("open-1", Route("temporal", {"workflow_id": "refund-1"}, "k"), 900)
    for task_id, engine in (("parked-1", "temporal"), ("parked-2", "langgraph")):
        await store.intake.register(task_id, Route(engine, {"thread_id": task_id}, task_id), 900)
        outcome = Outcome(task_id=task_id, status="completed", response={"secret": 1}, idempotency_key=task_id)
        await store.intake.answer(outcome, found_by="sweep")
        (wait,) = await store.leases.acquire(engine, "test", limit=1, seconds=5)
        await store.leases.park(wait, "test", reason=HOSTILE)
    yield store
    await store.stop()


async def test_waits_prints_a_table_of_80_columns(store: Store) -> None:
    """The table has states, ages, whole task ids, callers, and errors that cannot control a terminal."""
    done = await run("waits")
    assert done.exit_code == 0
    assert all(len(line) <= 80 for line in done.output.splitlines())
    for told in ("open-1", "parked-1", "temporal: workflow_id refund-1", "3 of 3 shown; 1 open, 2 parked"):
        assert told in done.output
    assert hostile.hidden(done.output, allowed="\n") == set()
    assert "[bold]" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("columns", [40, 60, 79, 80, 81, 100, 160])
async def test_waits_wraps_errors_without_losing_text(
    store: Store, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the width, an error is wrapped and not cut: words, addresses without a space, and its end."""
    monkeypatch.setenv("COLUMNS", str(columns))
    error = (
        "RuntimeError: Failed client connect: Server connection error: "
        "https://temporal.a-very-long-name-without-a-blank.internal.example.com:7233/namespaces/payments refused "
        + "and what is to be done about it " * 5
        + "is at the end"
    )
    await store.intake.register("t" * 32, Route("temporal", {"workflow_id": "refund-2"}, "k2"), 900)
    await store.intake.answer(
        Outcome(task_id="t" * 32, status="completed", response={"approved": True}, idempotency_key="k2"),
        found_by="sweep",
    )
    (wait,) = await store.leases.acquire("temporal", "test", limit=1, seconds=5)
    await store.leases.park(wait, "test", reason=error)
    await store.intake.register("d" * 32, Route("temporal", {"workflow_id": "refund-3"}, "k3"), 900)
    await store.intake.answer(
        Outcome(task_id="d" * 32, status="completed", response={"approved": True}, idempotency_key="k3"),
        found_by="sweep",
    )
    (wait,) = await store.leases.acquire("temporal", "test", limit=1, seconds=5)
    await store.leases.delivered(wait, "test")
    lines = (await run("waits", "--limit", "2")).output.splitlines()
    assert all(len(line) <= columns for line in lines)
    start = next(line.index("Last") for line in lines if "Last" in line)
    rows = lines[next(n for n, line in enumerate(lines) if line.startswith("State")) + 1 :]
    told = "".join(line[start:] for line in rows)
    assert error.replace(" ", "") in told.replace(" ", "")
    if columns >= 80:
        assert "t" * 32 in "\n".join(lines)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_waits_cuts_an_endless_error_and_points_to_its_text(store: Store) -> None:
    """An error that would fill the terminal is cut, and the output states where to find it whole."""
    await store.intake.register("long", Route("temporal", {"workflow_id": "refund-2"}, "k2"), 900)
    (wait,) = [each for each in await store.queries.listed() if each.task_id == "long"]
    await store.checks.park(wait, reason="word " * 1000)
    assert "(--jsonhasallofit)" in "".join((await run("waits", "--limit", "1")).output.split())


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_waits_marks_answers_whose_caller_had_ended(store: Store) -> None:
    """A wait that ended because its caller had ended is distinguished from a delivered one."""
    for task_id, note in (("gone", "workflow 'refund-2' has ended"), ("there", None)):
        await store.intake.register(task_id, Route("temporal", {"workflow_id": task_id}, task_id), 900)
        await store.intake.answer(
            Outcome(task_id=task_id, status="cancelled", idempotency_key=task_id), found_by="sweep"
        )
        (wait,) = await store.leases.acquire("temporal", "test", limit=1, seconds=5)
        await store.leases.delivered(wait, "test", note=note)
    told = (await run("waits", "--state", "delivered")).output
    assert told.count("caller gone") == 1
    assert "workflow 'refund-2' has" in told
    waits = json.loads((await run("waits", "--state", "delivered", "--json")).output)
    assert {wait["task_id"]: wait["caller_gone"] for wait in waits} == {"gone": True, "there": False}


async def test_waits_prints_json_for_programs(store: Store) -> None:
    """The JSON is filtered by state and engine, has the whole error, and omits the answer."""
    done = await run("waits", "--state", "parked", "--engine", "temporal", "--json")
    (wait,) = json.loads(done.output)
    assert (wait["task_id"], wait["state"], wait["last_error"]) == ("parked-1", "parked", HOSTILE)
    assert "secret" not in done.output
    assert [each["task_id"] for each in json.loads((await run("waits", "--limit", "1", "--json")).output)] == [
        "parked-2"
    ]


async def test_redrive_of_one_task_succeeds_once(store: Store) -> None:
    """One task is redriven; a second call finds nothing to do and reports it by its exit code."""
    done = await run("redrive", "parked-1")
    assert (done.exit_code, done.output.splitlines()[0][:20]) == (0, "redriven: 1 wait; a ")
    again = await run("redrive", "parked-1")
    assert (again.exit_code, again.output) == (1, "task parked-1 is not parked: it is answered\n")
    assert await store.queries.counts() == {"open": 1, "answered": 1, "parked": 1}


async def test_redrive_selects_one_engine_or_all(store: Store) -> None:
    """`redrive` takes the parked waits of one engine, or of all."""
    assert "redriven: 1 wait;" in (await run("redrive", "--all", "--yes", "--engine", "langgraph")).output
    assert await store.queries.counts(engine="temporal") == {"open": 1, "parked": 1}
    assert "redriven: 1 wait;" in (await run("redrive", "--all", "--yes")).output
    done = await run("redrive", "--all", "--yes")
    assert (done.exit_code, done.output) == (0, "nothing is parked\n")


async def test_misspelt_engine_is_named_in_the_message(store: Store) -> None:
    """The message is about that engine only, although others have parked waits."""
    assert (await run("waits", "--engine", "temporla")).output == "no waits for the engine 'temporla'\n"
    done = await run("redrive", "--all", "--yes", "--engine", "temporla")
    assert done.output == "nothing is parked for the engine 'temporla'\n"


@pytest.mark.parametrize("arguments", [[], ["task-1", "--all"], ["task-1", "--engine", "temporal"]])
async def test_redrive_without_a_selection_is_refused(arguments: list[str]) -> None:
    """Redriving everything requires `--all`."""
    assert (await run("redrive", *arguments)).exit_code == 2


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_redrive_distinguishes_an_unknown_task_from_one_not_parked(store: Store) -> None:
    """For an unknown task id the message refers to `waits`."""
    done = await run("redrive", "nobody")
    assert done.exit_code == 2
    assert "there is no wait on task 'nobody'; `awaithumans-relay waits` lists the waits" in done.stderr


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_redrive_all_without_a_terminal_needs_yes(store: Store) -> None:
    """Without a terminal, `--all` needs `--yes`; otherwise nothing happens."""
    done = await run("redrive", "--all")
    assert (done.exit_code, "add --yes" in done.stderr) == (2, True)
    assert await store.queries.counts() == {"open": 1, "parked": 2}


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_redrive_all_at_a_terminal_asks_for_confirmation(store: Store) -> None:
    """At a terminal, `--all` needs a yes; otherwise nothing happens."""
    person, terminal = os.openpty()
    os.write(person, b"n\n")
    command = [sys.executable, "-m", "awaithumans_relay.cli", "redrive", "--all"]
    process = await asyncio.create_subprocess_exec(*command, stdin=terminal, stdout=asyncio.subprocess.PIPE)
    told, _ = await asyncio.wait_for(process.communicate(), 30)
    os.close(person)
    os.close(terminal)
    assert process.returncode == 0
    assert told.decode() == "Redrive 2 parked waits? [y/N]: nothing was redriven\n"
    assert await store.queries.counts() == {"open": 1, "parked": 2}


async def test_running_relay_delivers_what_the_command_redrove(fake: FakeServer, tmp_path: Path) -> None:
    """The relay finds the redriven wait in the database without being notified."""
    broken = [True]

    def stumble(_: Route) -> None:
        if broken:
            raise TargetGone("broken")

    async with running_relay([CollectingEngine(on_deliver=stumble)], fake, tmp_path) as relay:
        server = Server(relay, fake)
        await server.call_back(Route("shelf", {}, "k"))
        await server.http.aclose()
        await relay.wait_for("task-1", "parked")
        broken.clear()
        done = await run("redrive", "task-1", "--database", f"sqlite:///{tmp_path / 'relay.db'}")
        assert done.exit_code == 0
        await relay.wait_for("task-1", "delivered")


@pytest.mark.parametrize("command", [["waits"], ["redrive", "--all"]])
async def test_command_without_a_database_creates_none(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder without a database the command reports that and creates no file."""
    monkeypatch.chdir(tmp_path)
    done = await run(*command)
    assert done.exit_code == 2
    assert f"there is no database at {tmp_path / 'awaithumans-relay.db'}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "not a database URL"),
        ("mystery://me:hush-hush@x", "not a database URL"),
        ("postgresql://me:hush-hush@127.0.0.1:1/waits", "is unreachable"),
    ],
)
async def test_unusable_database_is_reported_without_its_password(url: str, told: str) -> None:
    """The message has the reason and nothing secret."""
    done = await run("waits", "--database", url)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "hush-hush" not in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("statement", "told"), [("UPDATE schema_version SET version = 1", "schema 1"), (None, "no such table")]
)
async def test_command_does_not_migrate_a_database_of_another_release(
    statement: str | None, told: str, tmp_path: Path
) -> None:
    """An operator's command never changes the schema that a running relay uses."""
    file = tmp_path / "waits.db"
    if statement is None:
        file.touch()
    else:
        store = Store(f"sqlite:///{file}")
        await store.start()
        await store.stop()
        with sqlite3.connect(file) as db:
            db.execute(statement)
        db.close()
    done = await run("waits", "--database", f"sqlite:///{file}")
    assert (done.exit_code, told in done.stderr) == (2, True)


async def test_derived_keys_verify_what_the_server_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is a valid AWAITHUMANS_WEBHOOK_KEY, with both keys of a rotation."""
    roots = [secrets.token_urlsafe(32) for _ in range(2)]
    monkeypatch.setenv("AWAITHUMANS_PAYLOAD_KEY", ",".join(roots))
    done = await run("derive-key")
    assert (done.exit_code, done.stderr) == (0, "")
    for root, key in zip(roots, done.stdout.strip().split(","), strict=True):
        KeyRing.of(webhook_keys=[key]).verify(b"{}", sign(b"{}", derive_webhook_key(root)))


@pytest.mark.parametrize(("value", "told"), [(None, "is not set"), ("hush-hush", "is not base64")])
async def test_derive_key_without_a_usable_root_key_prints_no_key(
    value: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what is missing, prints nothing on stdout, and repeats no secret."""
    if value is not None:
        monkeypatch.setenv("AWAITHUMANS_PAYLOAD_KEY", value)
    done = await run("derive-key")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"AWAITHUMANS_PAYLOAD_KEY {told}" in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "waits", "redrive", "derive-key", "doctor", "init"])
async def test_help_of_every_command_has_an_example(command: str) -> None:
    """The help of every command shows how to call it."""
    done = await run(command, "--help")
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"awaithumans-relay {command}" in done.output


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--temporal", "http://localhost:7233"], "write it as host:port"),
        (["--graph", "a=my_app:one", "--graph", "a=my_app:two"], "the name 'a' is given more than once"),
        (["--graph", "my_app"], "NAME=module:attribute"),
        ([], "no engine"),
    ],
    ids=["temporal-url", "graph-twice", "graph-shape", "nothing"],
)
async def test_flags_without_an_engine_are_refused(
    flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that cannot work are refused before the relay starts."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    done = await run("serve", *flags)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
