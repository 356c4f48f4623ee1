"""`awaithumans-relay init`, the `.env` that it writes, and the key of a local server that the relay finds."""

import asyncio
import os
import secrets
import stat
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner, Result

from awaithumans_core.secret_strength import weakness
from awaithumans_core.settings import Settings
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_core.testing import FakeHumans
from awaithumans_relay.cli import cli
from awaithumans_relay.commands.checks import readable_settings
from awaithumans_relay.commands.init import TEMPLATE

ROOT = Path(__file__).resolve().parents[2]
OTHER_USER = 54_321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory. Variables that a command reads from `.env` are removed after the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in TEMPLATE.splitlines():
        name = line.lstrip("#").partition("=")[0]
        if name.isupper():
            monkeypatch.setenv(name, "")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


def init(*flags: str) -> str:
    done = run("init", *flags)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_init_writes_a_private_file_with_a_new_secret(folder: Path) -> None:
    """The file is complete but for what only the user knows, and the output names that."""
    printed = init()
    values = dotenv_values(".env")
    secret = values["AWAITHUMANS_RELAY_SECRET"]
    assert secret is not None
    assert weakness(secret) is None
    assert [name for name, value in values.items() if value] == ["AWAITHUMANS_RELAY_SECRET"]
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == [".env"]
    assert (
        "Fill in: AWAITHUMANS_URL, AWAITHUMANS_ADMIN_API_TOKEN, AWAITHUMANS_RELAY_URL, AWAITHUMANS_WEBHOOK_KEY"
        in printed
    )
    assert secret not in printed


def test_second_init_changes_nothing(folder: Path) -> None:
    """A secret that is in use is never made again."""
    init()
    first = Path(".env").read_bytes()
    Path(".env").chmod(0o644)
    assert "complete already" in init()
    assert Path(".env").read_bytes() == first
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "before",
    [
        "DATABASE_URL=postgres://me@db/app\n",
        "AWAITHUMANS_URL='https://humans.example'\nOPENAI_API_KEY=sk",
        "export AWAITHUMANS_RELAY_SECRET=\n# my note\n",
        "#AWAITHUMANS_RELAY_SECRET=\n#AWAITHUMANS_WEBHOOK_KEY=later\n",
        f"AWAITHUMANS_RELAY_SECRET={'x1' * 20}, {'y2' * 20}\n",
        "AWAITHUMANS_RELAY_SECRET=\nAWAITHUMANS_RELAY_SECRET=short\n",
        "AWAITHUMANS_RELAY_SECRET=\nOTHER=1\nAWAITHUMANS_RELAY_SECRET= # later\n",
        f"#\n# the relay\n#\nAWAITHUMANS_RELAY_SECRET={'x1' * 20}\n",
        f"\tAWAITHUMANS_RELAY_SECRET={'x1' * 20}\n  export AWAITHUMANS_WEBHOOK_KEY=k\n",
        f"OTHER=1\r\nAWAITHUMANS_RELAY_SECRET={'x1' * 20}\r\n",
        "",
    ],
    ids=[
        "other settings",
        "no line end",
        "empty secret",
        "comments",
        "two secrets",
        "a later line",
        "two empty",
        "below an empty comment",
        "indented",
        "line ends of Windows",
        "empty",
    ],
)
def test_init_completes_a_file(before: str) -> None:
    """Lines, values and comments that are there stay, in their order. A missing secret is made once."""
    Path(".env").write_text(before)
    given = {name: value for name, value in dotenv_values(".env").items() if value}
    init()
    after = dotenv_values(".env")
    assert given.items() <= after.items()
    assert after["AWAITHUMANS_RELAY_SECRET"]
    kept = [line for line in before.splitlines() if line and not line.endswith(("RELAY_SECRET=", "# later"))]
    assert Path(".env").read_bytes().count(b"\r\n") == before.count("\r\n")
    assert [line for line in Path(".env").read_text().splitlines() if line in kept] == kept
    assert ("AWAITHUMANS_WEBHOOK_KEY" in after) is ("#AWAITHUMANS_WEBHOOK_KEY" not in before)
    assert "complete already" in init()
    assert dotenv_values(".env") == after


def test_init_refuses_a_link(folder: Path) -> None:
    """The secret is written into the file that was named, and nowhere else."""
    Path("real").write_text("")
    Path(".env").symlink_to("real")
    done = run("init")
    assert (done.exit_code, Path("real").read_text()) == (2, "")
    assert "is a link" in done.stderr


@AS_ROOT
def test_file_of_another_user_is_neither_completed_nor_read() -> None:
    """Another user could name a server of theirs, which would then receive the token."""
    Path(".env").write_text("AWAITHUMANS_ADMIN_API_TOKEN=theirs\n")
    os.chown(".env", OTHER_USER, -1)
    assert "another user" in run("init").stderr
    run("derive-key")
    assert os.environ["AWAITHUMANS_ADMIN_API_TOKEN"] == ""


def test_init_lets_git_ignore_the_file(folder: Path) -> None:
    """A secret is not committed by accident, and a rule that exists already is enough."""
    git = ["git", "-c", "init.defaultBranch=main", "-C", str(folder)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    Path(".gitignore").write_text("*.log")
    assert "/.env added to .gitignore" in init()
    assert "git ignores it" in init()
    assert Path(".gitignore").read_text() == "*.log\n/.env\n"
    listed = subprocess.run([*git, "status", "--short"], check=True, capture_output=True, text=True).stdout
    assert ".env" not in listed
    subprocess.run([*git, "add", "--force", ".env"], check=True)
    assert "git rm --cached .env" in init()


def test_init_outside_of_git_says_what_to_do() -> None:
    """One line is enough where there is nothing to change."""
    assert "add the line /.env to .gitignore" in init()
    assert not Path(".gitignore").exists()


def test_variable_that_overrides_the_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a user would change the file without any effect."""
    monkeypatch.setenv("AWAITHUMANS_URL", "https://humans.example")
    assert "AWAITHUMANS_URL is also set in the environment, which wins" in init()


def test_example_for_deployments_is_the_template() -> None:
    """The settings are explained in one place."""
    assert (ROOT / "examples/deploy/relay.env.example").read_text() == TEMPLATE


def test_template_names_every_setting() -> None:
    """A new setting is explained too. The server's own key is named, but has no line: the relay should not have it."""
    for name in Settings.model_fields:
        assert f"AWAITHUMANS_{name.upper()}" in TEMPLATE
    assert "\nAWAITHUMANS_PAYLOAD_KEY" not in TEMPLATE


def test_command_line_reads_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable wins over the file. Names that are not settings of the relay are not taken."""
    root = secrets.token_urlsafe(32)
    Path(".env").write_text(
        f"AWAITHUMANS_PAYLOAD_KEY='{root}'\nexport TEMPORAL_NAMESPACE=refunds\nAWAITHUMANS_URL=https://file.example\n"
        "PYTHONPATH=/elsewhere\nNOT_OURS=1\nTEMPORAL_API_KEY=\n"
    )
    monkeypatch.setenv("AWAITHUMANS_URL", "https://variable.example")
    monkeypatch.setenv("AWAITHUMANS_PAYLOAD_KEY", " ")
    before = dict(os.environ)
    done = run("derive-key")
    assert (done.exit_code, done.stderr) == (0, "")
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    assert changed == {"AWAITHUMANS_PAYLOAD_KEY": root, "TEMPORAL_NAMESPACE": "refunds"}
    os.environ.update(before)


def test_options_with_a_variable_read_the_env_file() -> None:
    """`waits` finds the database that `.env` names."""
    Path(".env").write_text("AWAITHUMANS_RELAY_DATABASE=sqlite:///nowhere/waits.db\n")
    assert "nowhere/waits.db" in run("waits").stderr


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [(b"AWAITHUMANS_URL=\xff", 0o600, "UTF-8"), (b"AWAITHUMANS_URL=http://x", 0o666, "every user may write")],
)
def test_unusable_env_file_is_reported_and_not_used(
    content: bytes, mode: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The command continues without it."""
    Path(".env").write_bytes(content)
    Path(".env").chmod(mode)
    run("derive-key")
    assert os.environ["AWAITHUMANS_URL"] == ""
    assert reason in caplog.text


def local_server(folder: Path, url: str, token: str) -> str:
    """Write what a server that `awaithumans dev` runs in this project writes, and return its key."""
    key = secrets.token_urlsafe(32)
    files = folder / ".awaithumans"
    files.mkdir()
    for name, content in (("payload.key", key), ("admin.token", token)):
        (files / name).write_text(content)
        (files / name).chmod(0o600)
    (Path.home() / ".awaithumans-dev.json").write_text(f'{{"url": "{url}", "admin_token": "{token}"}}')
    return key


def test_relay_finds_the_key_of_a_local_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside `awaithumans dev` the relay needs no key, in any folder of the project. Other processes do not read it."""
    humans = FakeHumans()
    with humans.serving() as url:
        key = local_server(folder, url, humans.token)
        below = folder / "src"
        below.mkdir()
        monkeypatch.chdir(below)
        settings, _ = readable_settings()
        settings.key_ring().verify(b"{}", sign(b"{}", derive_webhook_key(key)))
        assert Settings.load().payload_key == []
        assert run("derive-key").exit_code == 0


async def test_key_of_a_local_server_is_found_inside_an_event_loop(folder: Path) -> None:
    """An application includes the relay in its loop."""
    key = local_server(folder, "http://localhost:3001", "token-of-the-server")
    settings = Settings(url="http://localhost:3001", admin_api_token="token-of-the-server")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert [each.get_secret_value() for each in settings.with_local_key().payload_key] == [key]


@pytest.mark.parametrize("other", ["token", "address", "mode", "own key"])
def test_key_of_another_server_is_not_used(other: str, folder: Path) -> None:
    """The token beside the key must be the server's, the server on this machine, and the file private."""
    local_server(folder, "http://localhost:3001", "token-of-the-server")
    given = {"url": "http://localhost:3001", "admin_api_token": "token-of-the-server"}
    if other == "token":
        given["admin_api_token"] = "another token"
    if other == "address":
        given["url"] = "http://humans.example:3001"
    if other == "mode":
        (folder / ".awaithumans" / "payload.key").chmod(0o644)
    own = {"webhook_key": secrets.token_urlsafe(32)} if other == "own key" else {}
    assert Settings.load(**given, **own).with_local_key().payload_key == []


def test_local_server_at_another_port_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`awaithumans dev` chooses another port if its own is taken, which AWAITHUMANS_URL then does not follow."""
    local_server(folder, "http://localhost:3004", "token-of-the-server")
    monkeypatch.setenv("AWAITHUMANS_URL", "http://localhost:3001")
    done = run("serve", "--temporal", "127.0.0.1:9")
    assert done.exit_code == 2
    assert "announced itself at http://localhost:3004, and not at http://localhost:3001" in done.stderr
    monkeypatch.setenv("AWAITHUMANS_URL", "https://humans.example")
    assert "3004" not in run("serve", "--temporal", "127.0.0.1:9").stderr
