"""Addresses of servers, the relay and the database: cleaned, checked before a task is created, shown with brackets."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from awaithumans_adapters.langgraph import LangGraphServerEngine
from awaithumans_core import Settings, SettingsError, SyncTaskClient, TaskClient
from awaithumans_core.http.addresses import cleaned, http_address, in_brackets, without_user
from awaithumans_core.http.clients import exposures
from awaithumans_core.testing import FakeHumans
from awaithumans_relay.cli import cli
from awaithumans_relay.commands.engines import EngineFlags
from awaithumans_relay.commands.existing_waits import shown_url
from awaithumans_relay.store import Store

ADDRESS = "http://localhost:3001"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("http://localhost:3001\n", ADDRESS),
        ("http://localhost:3001\r\n", ADDRESS),
        ("  http://localhost:3001\t", ADDRESS),
        ('"http://localhost:3001"', ADDRESS),
        ("'http://localhost:3001'\r", ADDRESS),
        ("' http://localhost:3001 '", ADDRESS),
        ("HTTP://localhost:3001", ADDRESS),
        ("http://[::1]:3001/", "http://[::1]:3001/"),
        ("http://[fe80::1%25eth0]:3001", "http://[fe80::1%25eth0]:3001"),
        ("https://humans.example/prefix", "https://humans.example/prefix"),
        ("http://my_service:80", "http://my_service:80"),
        ("https://bücher.example", "https://bücher.example"),
    ],
)
def test_address_is_cleaned(written: str, read: str) -> None:
    """Blanks, line ends and quotes around an address are removed."""
    assert http_address(written) == read
    assert http_address(read) == read


WRONG = [
    ("http://local host:3001", "remove the blank"),
    ("http://localhost\n:3001", "remove the blank"),
    ("http://localhost:3001\u200b", "control character"),
    ("http://::1:3001", "http://[::1]:3001"),
    ("http://[::1:3001", "http://[::1]:3001"),
    ("http://[nonsense]:3001", "http://[::1]:3001"),
    ("http://localhost:port", "host and port"),
    ("http://localhost:70000", "host and port"),
    ("http://localhost:0", "host and port"),
    ("http://:3001", "host and port"),
    ('http://"localhost":3001', "host and port"),
    ('http://localhost:3001"', "host and port"),
    ("http:///task", "host and port"),
    ("http://me:hush@localhost:3001", "remove user name and password"),
    ("http://localhost:3001/?a=b", "remove what follows"),
    ("http://localhost:3001/#/tasks", "remove what follows"),
]


@pytest.mark.parametrize(("written", "advice"), WRONG)
@pytest.mark.parametrize(
    "use",
    [
        lambda url: Settings.load(url=url),
        lambda url: Settings.load(relay_url=url),
        lambda url: Settings.load(public_url=url),
        lambda url: TaskClient(url, "token"),
        lambda url: SyncTaskClient(url, "token"),
    ],
    ids=["url", "relay_url", "public_url", "client", "sync client"],
)
def test_wrong_address_is_refused_before_a_task_is_created(
    use: Callable[[str], object], written: str, advice: str
) -> None:
    """The error shows the value without its password and the correct form."""
    with pytest.raises(SettingsError) as raised:
        use(written)
    assert "is not a usable address" in str(raised.value)
    assert advice in str(raised.value)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("written", [each for each, _ in WRONG if "hush" not in each])
def test_langgraph_server_address_is_checked(written: str) -> None:
    """The address is checked in a program and on the command line."""
    with pytest.raises(SettingsError, match="the LangGraph server's address"):
        LangGraphServerEngine(written)


def test_checked_address_is_accepted_by_httpx() -> None:
    """An address that passes the check does not fail when the client is created."""
    for written in ("http://my_service:80", "http://[fe80::1]:1", "https://bücher.example", "http://a-b.c.:9/x"):
        httpx.Client(base_url=http_address(written)).close()


def test_local_server_is_known_by_an_address_with_a_line_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`AWAITHUMANS_URL` from a file with CRLF is still the address of the local `awaithumans dev`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with FakeHumans().serving() as url:
        local = url.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("AWAITHUMANS_URL", f'"{local}"\r\n')
        found = {"url": f"{url}\n", "pid": os.getpid(), "admin_token": "dev-token"}
        (tmp_path / ".awaithumans-dev.json").write_text(json.dumps(found))
        settings = Settings.load()
    assert (settings.url, settings.token()) == (local, "dev-token")


@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")]
)
def test_ipv6_host_is_shown_with_brackets(host: str, shown: str) -> None:
    """Only an IPv6 address gets brackets, and only once."""
    assert in_brackets(host) == shown


def test_exposed_ipv6_address_is_shown_with_brackets() -> None:
    """The warning about plain HTTP shows the brackets, too."""
    assert (
        "http://[2001:db8::1]: the API token"
        in exposures("AWAITHUMANS_URL", "http://[2001:db8::1]:3001", "the API token")[0]
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://me:hush@host", "http://***@host"), ("me:h/ush@host", "***@host"), (ADDRESS, ADDRESS)],
)
def test_user_name_and_password_are_masked(url: str, shown: str) -> None:
    """They are masked in incomplete addresses as well."""
    assert without_user(url) == shown


@pytest.mark.parametrize("address", ["::1:7233", "[::1]", "local host:7233", "http://localhost:7233", "a@b:7233"])
async def test_malformed_temporal_address_is_refused(address: str) -> None:
    """The address is refused before a connection is made."""
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match="for instance localhost:7233 or") as raised:
            await EngineFlags(address, [], None).engines(stack)
    assert repr(address) in str(raised.value)


def test_address_in_use_is_shown_with_brackets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--host` takes an IPv6 address with and without brackets."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        for host in ("::1", "[::1]\r\n"):
            done = serve(["--temporal", "[::1]:9\r\n", "--host", host, "--port", str(port)], monkeypatch, tmp_path)
            assert (done.exit_code, f"cannot listen on [::1]:{port}" in done.stderr) == (3, True), done.stderr


def serve(flags: list[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Result:
    monkeypatch.chdir(folder)
    wanted = {"ADMIN_API_TOKEN": "token", "RELAY_SECRET": "a-secret-of-this-test-0123456789abcdef", "URL": ADDRESS}
    for name, value in (wanted | {"PAYLOAD_KEY": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY="}).items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    return CliRunner().invoke(cli, ["serve", *flags])


# --- database URLs


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (f"{kind}{driver}://me:hush@h/db", f"{kind}://me:***@h/db")
        for kind in ("postgres", "postgresql")
        for driver in ("", "+asyncpg", "+psycopg", "+psycopg2", "+psycopg_async", "+pg8000")
    ]
    + [
        ("sqlite+aiosqlite:///a.db", "sqlite:///a.db"),
        ('"sqlite:///a.db"\r\n', "sqlite:///a.db"),
        ("postgresql://me:hush@[::1]:5432/db\n", "postgresql://me:***@[::1]:5432/db"),
        (
            "postgresql://h/db?sslmode=require&options=-csearch_path%3Dx",
            "postgresql://h/db?options=-csearch_path%3Dx&sslmode=require",
        ),
    ],
)
def test_database_url_of_an_application_is_accepted(
    written: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is replaced by the relay's own, and kind, host, options and quoting are kept."""
    monkeypatch.chdir(tmp_path)
    url = Store(written).database.url
    assert url.drivername in ("postgresql+psycopg", "sqlite+pysqlite")
    assert shown_url(written).replace("postgresql://", "postgres://") == shown.replace("postgresql://", "postgres://")


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("postgresql+mystery://me:hush@h/db", "write it as postgresql://me:***@h/db"),
        ("sqlite+pysqlcipher:///a.db", "write it as sqlite:///a.db"),
        ("postgresql://me:hush@h/db?pgbouncer=true", "has the option 'pgbouncer'"),
        ("postgresql://me:hush@h/db?schema=public", "write options=-csearch_path"),
        ("postgresql+asyncpg://me:hush@h/db?ssl=require", "write sslmode=require"),
        ("mysql://me:hush@h/db", "not a database URL of a known kind"),
    ],
)
def test_unusable_database_url_is_refused(written: str, advice: str) -> None:
    """The error shows the correct form and no password."""
    with pytest.raises(SettingsError) as raised:
        Store(written)
    assert advice in str(raised.value)
    assert "hush" not in str(raised.value)


WITHOUT_PSYCOPG = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("psycopg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from awaithumans_relay.cli import main
main()
"""


@pytest.mark.edges
@pytest.mark.parametrize(
    "command",
    [["waits"], ["serve", "--temporal", "127.0.0.1:9"], ["serve", "--graph", "g=graph_on_postgres:graph"]],
    ids=["waits", "serve", "graph"],
)
def test_missing_psycopg_is_reported_with_the_install_line(command: list[str], tmp_path: Path) -> None:
    """The report is one line without a traceback, also if the checkpointer of a graph needs it."""
    (tmp_path / "graph_on_postgres.py").write_text("import psycopg")
    variables = {
        "AWAITHUMANS_URL": ADDRESS,
        "AWAITHUMANS_ADMIN_API_TOKEN": "token",
        "AWAITHUMANS_RELAY_SECRET": "a-secret-of-this-test-0123456789abcdef",
        "AWAITHUMANS_PAYLOAD_KEY": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY=",
        "AWAITHUMANS_RELAY_URL": ADDRESS,
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PSYCOPG, *command, "--database", "postgresql://me:hush@127.0.0.1:1/db"],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'awaithumans-workflows[postgres]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize(("text", "read"), [("", ""), ("'", "'"), ("\"a'", "\"a'"), ("''", ""), ("\n", "")])
def test_cleaning_removes_pairs_of_quotes_only(text: str, read: str) -> None:
    """A single quote may be part of the address."""
    assert cleaned(text) == read
