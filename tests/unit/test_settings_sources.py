"""The precedence of the sources of settings, and the set of settings that a development instance provides."""

import logging
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from pydantic import SecretStr

from awaithumans_core import SyncTaskClient
from awaithumans_core.discovery import DevInstance
from awaithumans_core.errors import SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.settings import Settings, check_all
from awaithumans_core.testing import FakeHumans
from awaithumans_relay import create_app
from tests.support.dev_instance import Listener, announced, dev_instance, listening, project_in_home

NOTHING_FOUND = Settings(url="http://localhost:3001")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return project_in_home(tmp_path, monkeypatch)


@pytest.fixture
def relay() -> Generator[Listener]:
    """The relay of a running instance."""
    with listening(secrets.token_urlsafe(32)) as listener:
        yield listener


@pytest.fixture
def instance(relay: Listener, project: Path) -> DevInstance:
    """The instance of that relay. Another process has announced it in the project."""
    return announced(dev_instance(relay.url, relay_secret=relay.secret), project)


def set_of(settings: Settings) -> dict[str, Any]:
    """The settings that an instance provides."""
    return settings.model_dump(include={"url", "admin_api_token", "relay_url", "relay_secret"})


def provided(instance: DevInstance) -> dict[str, Any]:
    return {
        "url": instance.server_url,
        "admin_api_token": instance.api_token,
        "relay_url": instance.relay_url,
        "relay_secret": [instance.relay_secret],
    }


def test_instance_of_the_project_provides_everything_a_caller_needs(instance: DevInstance) -> None:
    """Workers, scripts and nodes need no variable."""
    settings = Settings.load()
    assert set_of(settings) == provided(instance)
    assert HumanTasks().settings == settings
    assert settings.payload_key == settings.webhook_key == []


OTHERS: dict[str, Any] = {
    "url": "http://127.0.0.1:1",
    "admin_api_token": "another-token",
    "relay_url": "https://relay.example",
    "relay_secret": "another secret of thirty-two characters",
}


@pytest.mark.parametrize("source", ["argument", "variable", "env file"])
@pytest.mark.parametrize("name", OTHERS)
def test_instance_is_used_as_a_set_or_not_at_all(
    name: str,
    source: str,
    instance: DevInstance,
    relay: Listener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One setting for another server turns the instance off. Nothing of it leaves, not even a challenge."""
    given: dict[str, Any] = {}
    env_file = Path("settings.env")
    env_file.write_text(f"AWAITHUMANS_{name.upper()}='{OTHERS[name]}'" if source == "env file" else "")
    if source == "variable":
        monkeypatch.setenv(f"AWAITHUMANS_{name.upper()}", OTHERS[name])
    elif source == "argument":
        given[name] = OTHERS[name]
    settings = Settings.load(env_file=env_file, **given)
    expected = set_of(NOTHING_FOUND) | set_of(Settings(**{name: OTHERS[name]}))
    assert set_of(settings) == expected | {"url": OTHERS["url"] if name == "url" else "http://localhost:3001"}
    assert relay.received == []
    (line,) = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert f"AWAITHUMANS_{name.upper()}" in line
    assert not any(secret.get_secret_value() in line for secret in (instance.api_token, instance.relay_secret))


def test_settings_of_the_instance_may_be_repeated(instance: DevInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables with the instance's own values do not turn it off, and a name is replaced by the address it means."""
    monkeypatch.setenv("AWAITHUMANS_URL", instance.server_url.replace("127.0.0.1", "localhost") + "/")
    monkeypatch.setenv("AWAITHUMANS_RELAY_URL", instance.relay_url)
    assert set_of(Settings.load(relay_secret=[instance.relay_secret])) == provided(instance)
    assert set_of(Settings.load(admin_api_token=SecretStr(instance.api_token.get_secret_value()))) == provided(instance)
    monkeypatch.setenv("AWAITHUMANS_RELAY_SECRET", instance.relay_secret.get_secret_value())
    assert set_of(Settings.load()) == provided(instance)


def test_complete_settings_need_no_instance(
    instance: DevInstance, relay: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Where everything is set, the file is not read."""
    assert set_of(Settings.load(**OTHERS)) == set_of(Settings(**OTHERS))
    assert (relay.received, caplog.records) == ([], [])


def test_instance_of_the_project_precedes_a_local_server(instance: DevInstance, tmp_path: Path) -> None:
    """A project has its own servers, whatever else runs on the machine. A stale file gives way."""
    humans = FakeHumans()
    with humans.serving() as url:
        (tmp_path / ".awaithumans-dev.json").write_text(f'{{"url": "{url}", "admin_token": "dev-token"}}')
        assert Settings.load().url == instance.server_url
        announced(dev_instance(), Path.cwd())
        settings = Settings.load()
        assert (settings.url, settings.token(), settings.relay_url) == (url, "dev-token", None)


def test_use_of_an_instance_is_logged_once(instance: DevInstance, caplog: pytest.LogCaptureFixture) -> None:
    """The line names the file and the addresses, and no secret."""
    caplog.set_level(logging.INFO, "awaithumans")
    for _ in range(3):
        Settings.load()
    (record,) = caplog.records
    line = record.getMessage()
    for shown in (str(Path.cwd() / ".awaithumans" / "dev.json"), instance.server_url, instance.relay_url):
        assert shown in line
    assert instance.api_token.get_secret_value() not in line
    assert instance.relay_secret.get_secret_value() not in line


@pytest.mark.parametrize(("given", "level"), [("nothing", "WARNING"), ("server and token", "INFO")])
def test_unused_file_is_logged_once(given: str, level: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is a warning if the process may lack a setting for that reason."""
    caplog.set_level(logging.INFO, "awaithumans")
    stale = announced(dev_instance(), Path.cwd())
    whole: dict[str, Any] = {"url": stale.server_url, "admin_api_token": stale.api_token}
    values = {} if given == "nothing" else whole
    for _ in range(3):
        Settings.load(**values)
    (record,) = caplog.records
    assert "`awaithumans-relay dev`" in record.getMessage()
    assert record.levelname == level


async def test_instance_is_confirmed_inside_an_event_loop(instance: DevInstance, project: Path) -> None:
    """Activities and nodes load settings in their loop. An unconfirmed file provides nothing there either."""
    assert set_of(Settings.load()) == provided(instance)
    announced(dev_instance(), project)
    assert Settings.load() == NOTHING_FOUND


@pytest.mark.parametrize("refused", ["all but threads, as in LangGraph's server", "all"])
async def test_no_blocking_call_is_made_inside_an_event_loop(
    refused: str, instance: DevInstance, caplog: pytest.LogCaptureFixture
) -> None:
    """LangGraph's server refuses blocking calls in its loop, except to wait for a thread."""
    detector = BlockBuster("awaithumans_core")
    if refused != "all":
        detector.functions.pop("threading.Lock.acquire")
    detector.activate()
    try:
        settings = Settings.load()
    finally:
        detector.deactivate()
    assert set_of(settings) == (set_of(NOTHING_FOUND) if refused == "all" else provided(instance))
    assert any("event loop" in record.getMessage() for record in caplog.records) is (refused == "all")


def test_env_file_is_read_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library does not read files of the working directory by itself."""
    Path(".env").write_text("AWAITHUMANS_URL=https://file.example\nAWAITHUMANS_ADMIN_API_TOKEN=' file-token'\nX=1\n")
    assert Settings.load() == NOTHING_FOUND
    settings = Settings.load(env_file=".env")
    assert (settings.url, settings.token()) == ("https://file.example", "file-token")


def test_precedence_is_argument_variable_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented order of the first three sources. An empty value in one of them hides nothing."""
    Path(".env").write_text(
        "AWAITHUMANS_URL=https://file.example\nAWAITHUMANS_RELAY_URL=https://file.example\n"
        "AWAITHUMANS_PUBLIC_URL=https://file.example\nAWAITHUMANS_ADMIN_API_TOKEN=\n"
    )
    monkeypatch.setenv("AWAITHUMANS_URL", "https://variable.example")
    monkeypatch.setenv("AWAITHUMANS_RELAY_URL", "https://variable.example")
    monkeypatch.setenv("AWAITHUMANS_PUBLIC_URL", " ")
    settings = Settings.load(env_file=".env", url="https://argument.example", relay_url=None)
    assert settings.url == "https://argument.example"
    assert settings.relay_url == "https://variable.example"
    assert settings.public_url == "https://file.example"
    assert settings.admin_api_token is None


@pytest.mark.parametrize("address", ["url", "relay_url"])
def test_secret_of_an_env_file_is_not_used_with_another_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is left from another project does not send the token of this one there."""
    secret = {"url": "admin_api_token", "relay_url": "relay_secret"}[address]
    value = "v" * 40
    Path(".env").write_text(
        f"AWAITHUMANS_{address.upper()}=http://localhost:3001\nAWAITHUMANS_{secret.upper()}={value}\n"
    )
    monkeypatch.setenv(f"AWAITHUMANS_{address.upper()}", "https://other.example")
    with pytest.raises(SettingsError, match=f"AWAITHUMANS_{secret.upper()} of the file is not sent there") as refused:
        Settings.load(env_file=".env")
    assert value not in str(refused.value)
    monkeypatch.setenv(f"AWAITHUMANS_{address.upper()}", "http://127.0.0.1:3001/")  # the same address
    assert getattr(Settings.load(env_file=".env"), secret)
    monkeypatch.setenv(f"AWAITHUMANS_{address.upper()}", "https://other.example")
    monkeypatch.setenv(f"AWAITHUMANS_{secret.upper()}", "w" * 40)  # both are those of the other server
    assert Settings.load(env_file=".env").model_dump()[address].rstrip("/") == "https://other.example"


@pytest.mark.parametrize("content", [None, b"AWAITHUMANS_URL=\xff", ...], ids=["missing", "not text", "a folder"])
def test_unreadable_env_file_is_an_error(content: Any) -> None:
    """A file that was asked for is never ignored."""
    if content is ...:
        Path("my.env").mkdir()
    elif content is not None:
        Path("my.env").write_bytes(content)
    with pytest.raises(SettingsError, match=r"env file my\.env cannot be read"):
        Settings.load(env_file="my.env")


@pytest.mark.parametrize(
    ("caller", "names"),
    [
        (SyncTaskClient, ["ADMIN_API_TOKEN"]),
        (HumanTasks, ["ADMIN_API_TOKEN", "RELAY_URL", "RELAY_SECRET"]),
        (lambda: create_app([]), ["ADMIN_API_TOKEN", "RELAY_SECRET", "WEBHOOK_KEY"]),
    ],
    ids=["script", "worker", "relay"],
)
def test_every_caller_lists_all_missing_settings(caller: Any, names: list[str]) -> None:
    """Each setting has a line that says what it is, and a last line names the commands that provide them."""
    with pytest.raises(SettingsError) as raised:
        caller()
    *lines, where = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"AWAITHUMANS_{name} is not set" for name in names]
    assert raised.value.missing == tuple(f"AWAITHUMANS_{name}" for name in names)
    assert "awaithumans-relay dev" in where
    assert "awaithumans-relay init" in where


def test_wrong_settings_are_listed_with_the_missing_ones() -> None:
    """One error describes everything that has to be changed."""
    settings = Settings.load(relay_secret="short", admin_api_token="a\nb")
    with pytest.raises(SettingsError) as raised:
        check_all(settings.token, settings.signer, settings.relay)
    assert raised.value.missing == ("AWAITHUMANS_RELAY_URL",)
    assert all(name in str(raised.value) for name in ("ADMIN_API_TOKEN", "RELAY_SECRET", "RELAY_URL"))
