"""Settings: their sources, the precedence of the sources, and values that are never shown."""

import base64
import json
import os
import secrets
import socket
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from awaithumans_core.errors import SettingsError
from awaithumans_core.route import Route, RouteSigner
from awaithumans_core.settings import Settings
from awaithumans_core.signing import KEY_BYTES, derive_webhook_key, sign
from awaithumans_core.testing import FakeHumans

DISCOVERY_FILE = ".awaithumans-dev.json"
NEW, OLD = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
NEW_KEY, OLD_KEY = (base64.urlsafe_b64encode(key).decode() for key in (NEW, OLD))
ROUTE = Route("temporal", {"workflow_id": "refund-1"}, "question-1")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home directory without the file of `awaithumans dev`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def dev() -> Generator[FakeHumans]:
    """A running local server, as of `awaithumans dev`."""
    humans = FakeHumans()
    with humans.serving():
        yield humans


def discover(home: Path, url: str, **fields: Any) -> None:
    """Write the file that a running `awaithumans dev` writes; a field that is `...` is left out."""
    whole = {"url": url, "pid": os.getpid(), "admin_token": "dev-token"} | fields
    text = json.dumps({name: value for name, value in whole.items() if value is not ...})
    (home / DISCOVERY_FILE).write_text(text)


def unused_url() -> str:
    """An address without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_default_settings() -> None:
    """By default only the local server's address is set."""
    settings = Settings.load()
    assert settings.url == "http://localhost:3001"
    assert settings.admin_api_token is None
    assert settings.public_url is None
    assert settings.relay_url is None
    assert settings.relay_secret == settings.webhook_key == settings.payload_key == []


def test_local_dev_server_is_discovered(home: Path, dev: FakeHumans) -> None:
    """A running `awaithumans dev` needs no settings."""
    discover(home, dev.url)
    settings = Settings.load()
    assert settings.url == dev.url
    assert settings.token() == "dev-token"


def test_environment_overrides_a_local_dev_server(home: Path, dev: FakeHumans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Explicit variables take precedence over discovery."""
    discover(home, dev.url)
    monkeypatch.setenv("AWAITHUMANS_URL", "https://humans.example")
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", "env-token")
    settings = Settings.load()
    assert (settings.url, settings.token()) == ("https://humans.example", "env-token")


def test_arguments_override_all_other_sources(home: Path, dev: FakeHumans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of the call have the highest precedence."""
    discover(home, dev.url)
    monkeypatch.setenv("AWAITHUMANS_URL", "https://humans.example")
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", "env-token")
    settings = Settings.load(url="https://given.example", admin_api_token="given-token")
    assert (settings.url, settings.token()) == ("https://given.example", "given-token")


def test_argument_none_does_not_override(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optional arguments can be passed on without hiding the environment."""
    monkeypatch.setenv("AWAITHUMANS_URL", "https://humans.example")
    assert Settings.load(url=None, admin_api_token=None).url == "https://humans.example"


@pytest.mark.parametrize("name", ["AWAITHUMANS_URL", "AWAITHUMANS_ADMIN_API_TOKEN", "AWAITHUMANS_RELAY_URL"])
def test_empty_variable_counts_as_unset(
    name: str, home: Path, dev: FakeHumans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`NAME=` in a shell or compose file sets nothing and hides nothing."""
    discover(home, dev.url)
    without = Settings.load()
    monkeypatch.setenv(name, "")
    assert Settings.load() == without


def test_local_token_is_not_sent_to_another_server(
    home: Path, dev: FakeHumans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token of a local dev server is used for that server only."""
    discover(home, dev.url)
    monkeypatch.setenv("AWAITHUMANS_URL", "https://humans.example")
    with pytest.raises(SettingsError, match="AWAITHUMANS_ADMIN_API_TOKEN"):
        Settings.load().token()


def test_explicit_local_address_keeps_the_local_token(
    home: Path, dev: FakeHumans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting the local dev server's own address does not hide its token."""
    discover(home, dev.url)
    monkeypatch.setenv("AWAITHUMANS_URL", dev.url)
    assert Settings.load().token() == "dev-token"


def test_localhost_and_127_0_0_1_are_the_same_server(
    home: Path, dev: FakeHumans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two forms are one address."""
    discover(home, dev.url)
    monkeypatch.setenv("AWAITHUMANS_URL", dev.url.replace("127.0.0.1", "localhost") + "/")
    assert Settings.load().token() == "dev-token"


def test_stopped_dev_server_is_ignored(home: Path) -> None:
    """The file of a killed server is ignored, although its process id may belong to another process."""
    discover(home, unused_url())
    assert Settings.load() == Settings(url="http://localhost:3001")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 200 OK\r\n\r\n<html>",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b'HTTP/1.0 200 OK\r\n\r\n{"status": "starting"}',
        b'HTTP/1.0 503 Service Unavailable\r\n\r\n{"status": "ok"}',
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
    ids=["a page", "another JSON", "not ready", "unavailable", "another protocol", "closed"],
)
def test_another_program_at_the_address_is_ignored(reply: bytes, home: Path) -> None:
    """The address may now belong to another program, which must not receive the token."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        answered = pool.submit(answer)
        discover(home, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert Settings.load() == Settings(url="http://localhost:3001")
        answered.result(10)


def test_process_id_is_not_signalled(home: Path, dev: FakeHumans) -> None:
    """On Windows signal 0 is Ctrl-C, so the process id in the file is not used."""
    calls: list[object] = []

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.kill":
            calls.append(arguments)

    sys.addaudithook(audit)
    for fields in ({}, {"pid": ...}, {"pid": None}, {"pid": "first"}):
        discover(home, dev.url, **fields)
        assert Settings.load().url == dev.url
    assert calls == []


@pytest.mark.parametrize("directory", ["~", "", "/nonexistent", "relative"])
def test_settings_load_without_a_home_directory(
    directory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a container whose user is not in the user list there is no file, and settings still load."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", directory)
    assert Settings.load() == Settings(url="http://localhost:3001")


def test_dev_server_without_token_is_discovered(home: Path, dev: FakeHumans) -> None:
    """The address alone is used."""
    discover(home, dev.url, admin_token=...)
    assert Settings.load().url == dev.url
    assert Settings.load().admin_api_token is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        b'{"url": 4000}',
        b'{"url": "DEV", "admin_token": 7}',
        b'{"url": "localhost:4000"}',
        b'{"url": "ftp://localhost"}',
        b'{"url": "http://"}',
        b'{"url": "http://["}',
        b'{"url": "http://localhost:99999"}',
        b'{"url": "http://local host\\u0000"}',
        b'{"url": ""}',
        b'{"pid": 1}',
    ],
    ids=[
        "empty",
        "cut",
        "a list",
        "null",
        "text",
        "not UTF-8",
        "nested without end",
        "an empty object",
        "a url that is a number",
        "a token that is a number",
        "a url without a scheme",
        "a url with another scheme",
        "a url without a host",
        "half an IPv6 address",
        "a port beyond any",
        "a host that is none",
        "an empty url",
        "no url",
    ],
)
def test_malformed_discovery_file_is_ignored(content: bytes, home: Path, dev: FakeHumans) -> None:
    """Settings load whatever the file contains, and no part of a malformed file is used."""
    (home / DISCOVERY_FILE).write_bytes(content.replace(b"DEV", dev.url.encode()))
    assert Settings.load() == Settings(url="http://localhost:3001")


async def test_local_server_is_checked_inside_an_event_loop(home: Path, dev: FakeHumans) -> None:
    """The token of a local server is not sent to a program that may have taken its port."""
    discover(home, dev.url)
    assert (Settings.load().url, Settings.load().token()) == (dev.url, "dev-token")
    discover(home, unused_url())
    assert Settings.load() == Settings(url="http://localhost:3001")


def test_unreadable_discovery_file_is_ignored(home: Path) -> None:
    """A directory with the file's name is ignored."""
    (home / DISCOVERY_FILE).mkdir()
    assert Settings.load().url == "http://localhost:3001"


def test_repr_shows_no_secret() -> None:
    """Settings in a log or traceback show addresses only."""
    settings = Settings.load(
        admin_api_token="secret-token", relay_secret="secret-of-the-relay", webhook_key=NEW_KEY, payload_key=OLD_KEY
    )
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "secret-" not in shown
        assert NEW_KEY not in shown
        assert OLD_KEY not in shown


def test_settings_are_immutable() -> None:
    """Settings of a running process cannot be changed."""
    with pytest.raises(ValidationError):
        Settings.load().url = "https://elsewhere.example"


@pytest.mark.parametrize("source", ["environment", "argument"])
def test_several_secrets_are_separated_by_commas(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation needs one variable: the first secret signs, and both are accepted."""
    new, old = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    if source == "environment":
        monkeypatch.setenv("AWAITHUMANS_RELAY_SECRET", f" {new}, {old} ,")
        signer = Settings.load().signer()
    else:
        signer = Settings.load(relay_secret=f" {new}, {old} ,").signer()
    assert signer.open(RouteSigner([old]).issue(ROUTE)) == ROUTE
    assert RouteSigner([new]).open(signer.issue(ROUTE)) == ROUTE


def test_several_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of derived keys and root keys verify callbacks."""
    monkeypatch.setenv("AWAITHUMANS_WEBHOOK_KEY", f"{NEW_KEY},{OLD_KEY}")
    monkeypatch.setenv("AWAITHUMANS_PAYLOAD_KEY", NEW_KEY)
    ring = Settings.load().key_ring()
    for key in (NEW, OLD, derive_webhook_key(NEW_KEY)):
        ring.verify(b"body", sign(b"body", key))


@pytest.mark.parametrize(
    ("need", "names"),
    [
        (Settings.token, ["AWAITHUMANS_ADMIN_API_TOKEN"]),
        (Settings.relay, ["AWAITHUMANS_RELAY_URL"]),
        (Settings.signer, ["AWAITHUMANS_RELAY_SECRET"]),
        (Settings.key_ring, ["AWAITHUMANS_WEBHOOK_KEY", "AWAITHUMANS_PAYLOAD_KEY"]),
    ],
    ids=["token", "relay", "signer", "key_ring"],
)
def test_missing_setting_is_named(need: Any, names: list[str]) -> None:
    """The error names the variable to set."""
    with pytest.raises(SettingsError) as raised:
        need(Settings.load())
    assert all(name in str(raised.value) for name in names)


@pytest.mark.parametrize("token", ["", " ", "\n"], ids=ascii)
def test_blank_token_counts_as_missing(token: str) -> None:
    """An empty token file provides no token."""
    with pytest.raises(SettingsError, match="AWAITHUMANS_ADMIN_API_TOKEN"):
        Settings.load(admin_api_token=token).token()


def test_blanks_around_a_token_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token read from a file ends in a line end, which no header can contain."""
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", " secret-token\n")
    assert Settings.load().token() == "secret-token"


LINE_ENDS = pytest.mark.parametrize("end", ["\n", "\r\n", " \t\r"], ids=ascii)


@LINE_ENDS
@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_line_ends_around_a_variable_are_removed(name: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment files with Windows line ends leave them in the value."""
    value = "5" if name == "relay_sweep_percent" else "https://example.com/path"
    monkeypatch.setenv(f"AWAITHUMANS_{name.upper()}", value)
    without = Settings.load()
    monkeypatch.setenv(f"AWAITHUMANS_{name.upper()}", f" {value}{end}")
    assert Settings.load() == without


@LINE_ENDS
@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_blank_variable_counts_as_unset(name: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of line ends only sets nothing and hides no default."""
    monkeypatch.setenv(f"AWAITHUMANS_{name.upper()}", end)
    assert Settings.load() == Settings(url="http://localhost:3001")


@pytest.mark.parametrize("token", ["secret\ntoken", "secret\x00token", "secret-tökén"], ids=ascii)
def test_token_that_no_header_can_carry_is_refused(token: str) -> None:
    """The error does not repeat the token, as that of the HTTP client would."""
    with pytest.raises(SettingsError, match="AWAITHUMANS_ADMIN_API_TOKEN") as raised:
        Settings.load(admin_api_token=token).token()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"url": 40_004_000}, "AWAITHUMANS_URL"),
        ({"admin_api_token": 40_004_000}, "AWAITHUMANS_ADMIN_API_TOKEN"),
        ({"relay_secret": 40_004_000}, "AWAITHUMANS_RELAY_SECRET"),
        ({"relay_secret": [40_004_000]}, "AWAITHUMANS_RELAY_SECRET"),
        ({"payload_key": {"secret": "40004000"}}, "AWAITHUMANS_PAYLOAD_KEY"),
    ],
    ids=str,
)
def test_malformed_value_is_named_and_not_repeated(given: dict[str, Any], name: str) -> None:
    """The error names the malformed setting and hides its value."""
    with pytest.raises(SettingsError, match=name) as raised:
        Settings.load(**given)
    assert "4000" not in str(raised.value)


@pytest.mark.parametrize("name", ["AWAITHUMANS_URL", "AWAITHUMANS_PUBLIC_URL", "AWAITHUMANS_RELAY_URL"])
@pytest.mark.parametrize(
    "address", ["user:s3cr3t@host:3001", "ftp://s3cr3t", "//s3cr3t", "/s3cr3t", "http://", "https://"], ids=str
)
def test_invalid_address_is_named_and_not_repeated(name: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without scheme or host is refused before anything is sent."""
    monkeypatch.setenv(name, address)
    with pytest.raises(SettingsError, match=name) as raised:
        Settings.load()
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("AWAITHUMANS_RELAY_SECRET", Settings.signer),
        ("AWAITHUMANS_WEBHOOK_KEY", Settings.key_ring),
        ("AWAITHUMANS_PAYLOAD_KEY", Settings.key_ring),
    ],
)
def test_malformed_secret_is_named_and_not_repeated(name: str, need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error describes a short secret or an invalid key without showing it."""
    monkeypatch.setenv(name, "s3cr3t!")
    with pytest.raises(SettingsError, match=name) as raised:
        need(Settings.load())
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://localhost:8787", "http://localhost:8787/", "http://localhost:8787//"])
def test_relay_url_loses_its_trailing_slash(url: str) -> None:
    """Callback URLs never contain `//`, which some servers redirect and so lose the answer."""
    assert Settings.load(relay_url=url).relay() == "http://localhost:8787"


@pytest.mark.parametrize(
    ("given", "link"),
    [
        ({}, "http://localhost:3001/task?id=task-1"),
        ({"url": "http://humans:3001/"}, "http://humans:3001/task?id=task-1"),
        (
            {"url": "http://humans:3001", "public_url": "https://humans.example/"},
            "https://humans.example/task?id=task-1",
        ),
    ],
    ids=["default", "url", "public url"],
)
def test_review_link_uses_the_public_url(given: dict[str, str], link: str) -> None:
    """Reviewers may reach the server under another address than workers."""
    assert Settings.load(**given).review_url("task-1") == link


def test_review_link_quotes_the_task_id() -> None:
    """An unusual id in an earlier release's table opens no other page."""
    assert Settings.load().review_url("a?b=1&c/..") == "http://localhost:3001/task?id=a%3Fb%3D1%26c%2F.."
