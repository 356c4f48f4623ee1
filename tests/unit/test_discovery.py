"""The discovery file of `awaithumans-relay dev`: who may have written it, and that no secret leaves before a proof."""

import hashlib
import hmac
import json
import os
import secrets
import socket
import stat
from collections.abc import Generator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pydantic import ValidationError

from awaithumans_core import discovery
from awaithumans_core.discovery import CHALLENGE, DevInstance, UnusableFileError, announce, running_instance, withdraw
from awaithumans_core.errors import SettingsError
from awaithumans_core.time_limit import within_limit
from tests.support.dev_instance import Listener, announced, dev_instance, listening, project_in_home

OTHER_USER = 54_321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return project_in_home(tmp_path, monkeypatch)


@pytest.fixture
def relay() -> Generator[Listener]:
    """The relay of a running instance, with a secret of its own."""
    with listening(secrets.token_urlsafe(32)) as listener:
        yield listener


@pytest.fixture
def instance(relay: Listener, project: Path) -> DevInstance:
    """The instance of that relay. Another process has announced it in the project."""
    return announced(dev_instance(relay.url, relay_secret=relay.secret), project)


def found() -> DevInstance | None:
    """The instance that is discovered in the working directory."""
    file = running_instance()
    return None if file is None else file.instance


def problem() -> str:
    """The reason why the file is not used. Nothing is discovered."""
    file, reason = discovery.search.trusted_file()
    assert file is None
    assert found() is None
    assert reason is not None
    return reason


def test_running_instance_is_found_in_its_project_and_below(
    instance: DevInstance, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts in any folder of the project find the instance, with all its fields."""
    assert found() == instance
    below = project / "src" / "app"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert found() == instance


def test_discovery_file_is_private_and_ignored_by_git(instance: DevInstance, project: Path) -> None:
    """Only the user can read the file, and git does not add its folder."""
    folder = project / ".awaithumans"
    assert stat.S_IMODE((folder / "dev.json").stat().st_mode) == 0o600
    assert (folder / ".gitignore").read_text() == "*\n"
    assert sorted(file.name for file in folder.iterdir()) == [".gitignore", "dev.json"]


def test_gitignore_of_the_user_keeps_its_lines(project: Path) -> None:
    """A line is added to a `.gitignore` that does not ignore everything, once."""
    (project / ".awaithumans").mkdir()
    (project / ".awaithumans" / ".gitignore").write_text("dev.db")
    announce(dev_instance(), project)
    announce(dev_instance(), project)
    assert (project / ".awaithumans" / ".gitignore").read_text() == "dev.db\n*\n"


def test_only_the_instance_itself_removes_its_file(instance: DevInstance, project: Path) -> None:
    """An instance that ends late leaves the file of the next one."""
    withdraw(dev_instance(), project)
    assert found() == instance
    withdraw(instance, project)
    assert found() is None
    assert not (project / ".awaithumans" / "dev.json").exists()
    withdraw(instance, project)


def test_two_projects_have_instances_of_their_own(
    instance: DevInstance, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each project finds its own instance, and a project inside another one too."""
    with listening(secrets.token_urlsafe(32)) as relay:
        second = dev_instance(relay.url, relay_secret=relay.secret)
        for beside in (project.parent / "second", project / "inside"):
            beside.mkdir()
            announce(second, beside)
            monkeypatch.chdir(beside)
            assert found() == second
    monkeypatch.chdir(project)
    assert found() == instance


def test_search_ends_at_the_home_directory(
    instance: DevInstance, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file above the home directory belongs to another place."""
    home = project / "home"
    (home / "project").mkdir(parents=True)
    monkeypatch.chdir(home / "project")
    assert found() == instance
    monkeypatch.setenv("HOME", str(home))
    assert found() is None


def test_nothing_is_found_without_a_file_or_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, working directory or home directory is no problem."""
    assert discovery.search.trusted_file() == (None, None)
    monkeypatch.setenv("HOME", "/nonexistent")
    assert discovery.search.trusted_file() == (None, None)
    project.rmdir()
    assert discovery.search.trusted_file() == (None, None)


@AS_ROOT
@pytest.mark.parametrize("what", ["project", "project/.awaithumans", "project/.awaithumans/dev.json"])
def test_file_of_another_user_is_not_used(what: str, instance: DevInstance, project: Path) -> None:
    """Another user could have written the file, if it or one of its folders belongs to them."""
    os.chown(project.parent / what, OTHER_USER, -1)
    assert "another user" in problem()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_file_that_others_may_access_is_not_used(mode: int, instance: DevInstance, project: Path) -> None:
    """Its secrets are known to others, or from others."""
    (project / ".awaithumans" / "dev.json").chmod(mode)
    assert f"(mode {mode:04o})" in problem()


@pytest.mark.parametrize("linked", [".awaithumans", ".awaithumans/dev.json"])
def test_symbolic_link_is_not_followed(linked: str, instance: DevInstance, project: Path) -> None:
    """A link could lead to a file of another project, whose secrets would be used here."""
    real = (project / linked).rename(project.parent / "elsewhere")
    (project / linked).symlink_to(real)
    assert "symbolic link" in problem()


def test_file_is_not_written_through_a_symbolic_link(project: Path, tmp_path: Path) -> None:
    """The secrets are written into the project, and nowhere else."""
    (tmp_path / "elsewhere").mkdir()
    (project / ".awaithumans").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="it is a link"):
        announce(dev_instance(), project)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_named_pipe_does_not_block(project: Path) -> None:
    """Opening a pipe that nothing writes to would wait forever."""
    (project / ".awaithumans").mkdir()
    os.mkfifo(project / ".awaithumans" / "dev.json", 0o600)
    assert "another kind of file" in problem()


@pytest.mark.parametrize(
    "fields",
    [
        {"server_url": "https://humans.example"},
        {"server_url": "http://humans.example:3001"},
        {"relay_url": "http://192.168.0.7:8787"},
        {"relay_url": "http://0.0.0.0:8787"},
        {"relay_url": "http://localhost:8787"},
        {"relay_url": "http://localhost.evil.example:8787"},
        {"relay_url": "http://127.0.0.1.evil.example:8787"},
        {"relay_url": "http://127.0.0.1@evil.example:8787"},
        {"relay_url": "http://127.0.0.1:8787@evil.example:8787"},
        {"relay_url": "http://127.0.0.1:8787/path"},
        {"relay_url": "http://127.0.0.1"},
        {"temporal_address": "temporal.example:7233"},
        {"temporal_address": "x@127.0.0.1:7233"},
        {"temporal_address": "127.0.0.1:7233/path"},
        {"relay_secret": "short"},
        {"api_token": ""},
        {"version": 2},
        {"server_url": ...},
    ],
    ids=str,
)
def test_file_with_another_content_is_not_used(
    fields: dict[str, Any], instance: DevInstance, project: Path, relay: Listener
) -> None:
    """Addresses must be of this machine, as numbers, since other users may listen on the other address of a name."""
    file = project / ".awaithumans" / "dev.json"
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))
    assert next(iter(fields)) in problem()
    assert relay.received == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * 70_000 + b"{}"], ids=len)
def test_malformed_file_is_not_used(content: bytes, instance: DevInstance, project: Path) -> None:
    """The file may be of any content and size."""
    (project / ".awaithumans" / "dev.json").write_bytes(content)
    assert "dev.json is not used" in problem()


def test_problem_does_not_repeat_the_content(instance: DevInstance, project: Path) -> None:
    """A malformed file may hold secrets in the wrong place."""
    file = project / ".awaithumans" / "dev.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"server_url": "s3cr3t", "relay_url": "http://s3cr3t@x"}))
    assert "s3cr3t" not in problem()


def test_secrets_of_an_instance_are_not_shown(instance: DevInstance) -> None:
    """An instance in a log, a traceback or an error shows addresses only."""
    secrets_of = [instance.relay_secret.get_secret_value(), instance.api_token.get_secret_value()]
    with pytest.raises(ValidationError) as raised:
        DevInstance.model_validate(instance.model_dump() | {"relay_secret": 7, "server_url": secrets_of[1]})
    for shown in (repr(instance), str(instance), str(instance.model_dump()), str(raised.value)):
        assert not any(secret in shown for secret in secrets_of)


def test_proof_is_the_documented_one() -> None:
    """The relay and its clients may be of different releases."""
    expected = hmac.new(b"secret", b"awaithumans-dev:http://127.0.0.1:8787:challenge", hashlib.sha256).hexdigest()
    assert discovery.proof_of("secret", "http://127.0.0.1:8787", "challenge") == expected


def test_only_a_challenge_is_sent(instance: DevInstance, relay: Listener) -> None:
    """Each confirmation has a new challenge of the documented form, and no secret leaves with it."""
    assert found() == instance
    assert found() == instance
    challenges = {line.split("challenge=")[1].split()[0] for line in relay.received}
    assert len(challenges) == 2
    assert all(CHALLENGE.fullmatch(challenge) for challenge in challenges)
    for secret in (instance.relay_secret, instance.api_token):
        assert secret.get_secret_value() not in "".join(relay.received)


def test_stale_file_is_not_used(instance: DevInstance, project: Path) -> None:
    """After `kill -9` nothing listens on the port, and no signal is sent to find that out."""
    announced(dev_instance(), project)
    assert found() is None


def test_listener_on_the_port_of_the_relay_gets_no_secret(instance: DevInstance, project: Path) -> None:
    """Another program may have taken the port of an instance that has ended."""
    for secret in (None, secrets.token_urlsafe(32)):
        with listening(secret) as stranger:
            stale = dev_instance(stranger.url)
            announced(stale, project)
            assert found() is None
            assert len(stranger.received) == 1
            for hidden in (stale.relay_secret, stale.api_token):
                assert hidden.get_secret_value() not in stranger.received[0]


def test_challenge_passed_on_to_the_relay_proves_nothing(project: Path) -> None:
    """A copied project has the secret of the original, whose relay answers a program on the copy's old port."""
    copy = dev_instance()
    with listening(copy.relay_secret.get_secret_value()) as forwarder:
        forwarder.proven_url = copy.relay_url
        announced(copy.model_copy(update={"relay_url": forwarder.url}), project)
        assert found() is None
        assert len(forwarder.received) == 1


def test_redirect_is_not_followed(instance: DevInstance, relay: Listener, project: Path) -> None:
    """A program on the port could otherwise let the real relay give its proof."""
    with listening() as stranger:
        stranger.redirect = relay.url
        announced(instance.model_copy(update={"relay_url": stranger.url}), project)
        assert found() is None
    assert relay.received == []


def test_no_proxy_is_used(instance: DevInstance, relay: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is on another machine, which the address would then mean."""
    with listening() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert found() == instance
        assert proxy.received == []


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 200 OK\r\n\r\n{}",
        b'HTTP/1.0 200 OK\r\n\r\n{"proof": 1}',
        b'HTTP/1.0 200 OK\r\n\r\n{"proof": "\xc3\xa9"}',
        b'HTTP/1.0 200 OK\r\n\r\n{"proof": "' + b"0" * 100_000,
        b"HTTP/1.0 200 OK\r\n" + b"X-Header: 1\r\n" * 1000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
    ids=["no proof", "a number", "not ASCII", "long", "many headers", "another protocol", "closed"],
)
def test_other_replies_prove_nothing(reply: bytes, project: Path) -> None:
    """The program at the address may be of any kind."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = Thread(target=answer)
        thread.start()
        assert not discovery.is_running(dev_instance(f"http://127.0.0.1:{server.getsockname()[1]}"))
        thread.join(10)


def test_silent_listener_does_not_block_the_caller(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that accepts connections and does not answer delays the caller for the limit only."""
    monkeypatch.setattr(discovery.confirmation, "REPLY_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not discovery.is_running(dev_instance(f"http://127.0.0.1:{server.getsockname()[1]}"))


def test_slow_reply_does_not_block_the_caller() -> None:
    """A program that answers byte by byte delays the caller for the limit only."""
    over = Event()
    assert within_limit(lambda: over.wait(30), otherwise=False, seconds=0.05) is False
    over.set()


async def test_instance_is_confirmed_inside_an_event_loop(instance: DevInstance, project: Path) -> None:
    """Settings are loaded inside of event loops too, and there no unconfirmed file is believed."""
    assert found() == instance
    announced(dev_instance(), project)
    assert found() is None


def test_announcing_process_needs_no_confirmation(project: Path) -> None:
    """The relay of `dev` may read its own settings in the event loop that would have to answer."""
    own = dev_instance()
    announce(own, project)
    assert found() == own
    announced = announce(dev_instance(), project.parent)
    announced.rename(project / ".awaithumans" / "dev.json")
    assert found() is None


def test_unreadable_file_raises_a_typed_error(project: Path) -> None:
    """The error of `read` is documented."""
    with pytest.raises(UnusableFileError):
        discovery.read(project / ".awaithumans" / "dev.json")
