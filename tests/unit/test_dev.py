"""The parts of `awaithumans-relay dev`: its lines, the data of a project, its ports, and the proof of its instance."""

import os
import socket
import stat
from collections.abc import AsyncGenerator, Generator
from datetime import datetime
from io import StringIO
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from rich.console import Console
from typer.testing import CliRunner

from awaithumans_core import Outcome, Route
from awaithumans_core.clock import SystemClock
from awaithumans_core.discovery import INSTANCE_PATH, proof_of
from awaithumans_core.errors import SettingsError
from awaithumans_core.testing import FakeHumans
from awaithumans_relay.cli import cli
from awaithumans_relay.dev.ports import free_port
from awaithumans_relay.dev.project import Ports, ProjectBusyError, choose, locked
from awaithumans_relay.dev.questions import MAX_LINES, PAGE, REGISTERED_WITHIN, Questions
from awaithumans_relay.dev.relay import confirm_instance, use_environment
from awaithumans_relay.dev.screen import Screen
from awaithumans_relay.store import Store

NOON = datetime(2030, 1, 1, 12)


class Printed:
    """A screen, and what it shows."""

    def __init__(self, width: int | None = None) -> None:
        self._file = StringIO()
        terminal = width is not None
        console = Console(
            file=self._file, width=width, force_terminal=terminal, color_system=None, highlight=False, markup=False
        )
        self.screen = Screen(console, lambda: NOON)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (None, ["12:00:00  answered   Approve $250 refund?  (by anna@example.com, dashboard)"]),
        (120, ["12:00:00  answered   Approve $250 refund?  by anna@example.com, dashboard"]),
        (60, ["12:00:00  answered   Approve $250 refund?", " " * 21 + "by anna@example.com, dashboard"]),
    ],
)
def test_event_is_one_line_and_is_indented_where_it_does_not_fit(width: int | None, shown: list[str]) -> None:
    """A file gets one line for each event. A narrow terminal gets the note below the question."""
    printed = Printed(width)
    printed.screen.event("answered", "Approve $250 refund?", "by anna@example.com, dashboard")
    assert printed.lines() == shown


def test_event_shows_foreign_text_harmlessly() -> None:
    """A question cannot forge a line or send escape codes to the terminal."""
    printed = Printed()
    printed.screen.event("asked", "paid\n12:00:00  delivered  \x1b[2J[red]x[/]", "script")
    assert printed.lines() == ["12:00:00  asked      paid\\n12:00:00  delivered  \\x1b[2J[red]x[/]  (script)"]


class Watched:
    """The questions of a server, watched with a clock that the test sets."""

    def __init__(self, humans: FakeHumans, people: httpx.AsyncClient, store: Store) -> None:
        self.humans, self.people, self.store = humans, people, store
        self.printed = Printed()
        self.now = 0.0
        self.questions = self.watch()

    def watch(self) -> Questions:
        self.printed = Printed()
        return Questions(self.people, self.store.queries.find, self.printed.screen, lambda: self.now)

    async def ask(self, text: str, *, workflow: str | None = None, **more: object) -> str:
        body = {"task": text, "payload": {}, "payload_schema": {}, "response_schema": {"type": "object"}}
        key = f"key of {text}"
        created = await self.people.post(
            "/api/tasks", json=body | {"timeout_seconds": 900, "idempotency_key": key} | more
        )
        task_id = str(created.raise_for_status().json()["id"])
        if workflow is not None:
            await self.store.intake.register(task_id, Route("temporal", {"workflow_id": workflow}, key), 900)
        return task_id

    async def tick(self) -> list[str]:
        before = len(self.printed.lines())
        await self.questions.tick()
        return [line.removeprefix("12:00:00  ") for line in self.printed.lines()[before:]]

    async def deliver(self, text: str, task_id: str) -> None:
        outcome = Outcome(task_id=task_id, status="completed", idempotency_key=f"key of {text}", response={})
        await self.store.intake.answer(outcome, found_by="callback")
        (wait,) = await self.store.leases.acquire("temporal", "test", limit=1, seconds=60)
        await self.store.leases.delivered(wait, "test")


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncGenerator[Watched]:
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    await store.start()
    async with FakeHumans(clock=SystemClock()) as humans:
        headers = {"Authorization": f"Bearer {humans.token}"}
        async with httpx.AsyncClient(transport=humans.transport(), base_url="http://server", headers=headers) as people:
            yield Watched(humans, people, store)
    await store.stop()


async def test_question_of_a_workflow_is_reported_when_asked_answered_and_delivered(watched: Watched) -> None:
    """Each line names the question, and who asks, answers or receives the answer."""
    task_id = await watched.ask("Refund?", workflow="refund-1", assign_to={"email": "anna@example.com"})
    link = f"http://server/task?id={task_id}"
    assert await watched.tick() == [f"asked      Refund?  (workflow refund-1, for anna@example.com)  {link}"]
    assert await watched.tick() == []
    watched.humans.complete(task_id, {}, by="anna@example.com")
    assert await watched.tick() == ["answered   Refund?  (by anna@example.com, dashboard)"]
    await watched.deliver("Refund?", task_id)
    assert await watched.tick() == ["delivered  Refund?  (to workflow refund-1)"]
    assert (await watched.tick(), watched.questions.open) == ([], 0)


async def test_question_that_is_not_registered_is_one_of_a_script(watched: Watched) -> None:
    """A workflow registers its question after asking, so the line waits for that."""
    await watched.ask("Refund?")
    assert await watched.tick() == []
    watched.now += REGISTERED_WITHIN
    (line,) = await watched.tick()
    assert line.startswith("asked      Refund?  (script)  ")


async def test_burst_of_questions_is_counted(watched: Watched) -> None:
    """A batch does not fill the terminal, and its later answers are found although the list has newer tasks."""
    first = await watched.ask("Question 0?")
    for number in range(1, PAGE + 2):
        await watched.ask(f"Question {number}?")
    await watched.tick()
    watched.now += REGISTERED_WITHIN
    lines = await watched.tick()
    lines += await watched.tick()
    assert len(lines) > MAX_LINES
    assert sum("Question" in line for line in lines) < PAGE
    watched.humans.complete(first, {})
    lines = [line for _ in range(PAGE) for line in await watched.tick()]
    assert [line for line in lines if "answered" in line] == ["answered   Question 0?  (by API, dashboard)"]


async def test_questions_of_earlier_runs_are_not_reported_as_asked(watched: Watched) -> None:
    """After a restart, their answers are reported."""
    task_id = await watched.ask("Refund?", workflow="refund-1")
    watched.questions = watched.watch()
    await watched.questions.begin()
    assert (await watched.tick(), watched.questions.open) == ([], 1)
    watched.humans.complete(task_id, {})
    assert await watched.tick() == ["answered   Refund?  (by API, dashboard)"]


def test_project_keeps_its_keys_for_the_user_alone(tmp_path: Path) -> None:
    """Keys are made once for a project. No other user can read them, and git does not see them."""
    with locked(tmp_path) as project:
        kept = project.kept()
        project.keep(kept)
    with locked(tmp_path) as project:
        assert project.kept() == kept
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (project.data, project.data / "kept.json")]
        assert modes == [0o700, 0o600]
        project.clear()
        assert project.kept().api_token != kept.api_token
    assert "*" in (tmp_path / ".awaithumans/.gitignore").read_text().split()


def test_project_is_used_by_one_run_at_a_time(tmp_path: Path) -> None:
    """Two runs would use the same databases."""
    with (
        locked(tmp_path),
        pytest.raises(ProjectBusyError, match="another `awaithumans-relay dev` uses"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_project_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The owner of the link would choose where the keys are written."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".awaithumans").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="link"), locked(tmp_path):
        pass


@pytest.mark.parametrize("name", ["dev", ".gitignore"])
def test_link_in_the_project_folder_is_refused(name: str, tmp_path: Path) -> None:
    """A project from someone else cannot let a run write or delete other files of the user."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    (tmp_path / ".awaithumans").mkdir()
    (tmp_path / ".awaithumans" / name).symlink_to(other if name == "dev" else other / "file")
    with pytest.raises(SettingsError, match="is not used: it is a link"), locked(tmp_path) as project:
        project.clear()
    assert [(file.name, file.read_text()) for file in other.iterdir()] == [("file", "mine")]


def test_kept_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The error names the file and the option that begins again."""
    with locked(tmp_path) as project:
        (project.data / "kept.json").write_text("{")
        with pytest.raises(SettingsError, match=r"kept\.json cannot be used.*--fresh"):
            project.kept()


def test_ports_are_the_usual_ones_the_last_ones_or_free_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port in use is replaced, except one that must be used."""
    usual = Ports(server=free_port(), temporal=free_port(), temporal_ui=free_port(), relay=free_port())
    monkeypatch.setattr("awaithumans_relay.dev.project.USUAL", usual)
    last = Ports(server=free_port(), temporal=free_port(), temporal_ui=free_port(), relay=free_port())
    with (
        socket.create_server(("127.0.0.1", usual.relay)),
        socket.create_server(("127.0.0.1", usual.temporal)),
        socket.create_server(("127.0.0.1", last.temporal)),
    ):
        chosen = choose({}, last)
        with pytest.raises(SettingsError, match=f"port {last.temporal} is in use"):
            choose({"temporal": last.temporal}, last)
    assert (chosen.server, chosen.temporal_ui, chosen.relay) == (usual.server, usual.temporal_ui, last.relay)
    assert chosen.temporal not in {usual.temporal, last.temporal}
    with pytest.raises(SettingsError, match="is in use"):  # it is claimed, although nothing listens yet
        choose({"relay": last.relay}, last)


async def test_instance_proves_that_it_knows_the_secret() -> None:
    """The proof is that of the discovery file's format, and only for challenges of the exact form."""
    app = FastAPI()
    confirm_instance(app, "s" * 43, "http://127.0.0.1:8787")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as client:
        challenge = "Ab-_" * 10 + "abc"
        reply = await client.get(INSTANCE_PATH, params={"challenge": challenge})
        assert reply.json() == {"proof": proof_of("s" * 43, "http://127.0.0.1:8787", challenge)}
        for wrong in ("", "short", challenge + "a", challenge[:-1] + "\n", challenge[:-1] + "é"):
            assert (await client.get(INSTANCE_PATH, params={"challenge": wrong})).status_code == 422
        assert (await client.get(INSTANCE_PATH)).status_code == 422


@pytest.fixture
def restored_environment() -> Generator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("restored_environment")
def test_settings_of_other_servers_do_not_reach_graphs() -> None:
    """Graphs run in the relay's process, and must not ask on the server that the user's variables name."""
    os.environ |= {
        "AWAITHUMANS_URL": "https://production",
        "AWAITHUMANS_PUBLIC_URL": "https://production",
        "TEMPORAL_NAMESPACE": "production",
        "NO_PROXY": "example.com",
    }
    use_environment({"AWAITHUMANS_URL": "http://127.0.0.1:3001"}, own_temporal=True)
    ours = {name: value for name, value in os.environ.items() if name.startswith(("AWAITHUMANS_", "TEMPORAL_"))}
    assert ours == {"AWAITHUMANS_URL": "http://127.0.0.1:3001"}
    assert os.environ["NO_PROXY"] == "example.com,127.0.0.1,localhost"


def test_missing_server_is_reported_with_its_install_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the awaithumans server there is nothing to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    done = CliRunner().invoke(cli, ["dev"])
    assert (done.exit_code, "pip install 'awaithumans[server]" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
