"""The report of a running relay, and `doctor` on the machine of a worker, which asks for it."""

import asyncio
import json
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from awaithumans_core import Route, Settings, SettingsError
from awaithumans_core.services import WRONG_RELAY_SECRET
from awaithumans_relay.cli import cli
from awaithumans_relay.commands.engines import EngineFlags
from awaithumans_relay.commands.role import Role, role_here
from awaithumans_relay.commands.worker_checks import (
    check_relay_engines,
    check_relay_key,
    check_relay_server,
    check_relay_store,
)
from awaithumans_relay.dispatch.probe_engine import new_probe
from awaithumans_relay.monitoring.report import MAX_SERVED, MAX_TEXT_CHARS, EngineReport, RelayReport
from awaithumans_relay.store.defaults import DEFAULT_DATABASE
from tests.support.engines import CollectingEngine
from tests.support.relay import RunningRelay, Server
from tests.support.servers import FakeServer

NAMES_SERVED = 500


class Serving(CollectingEngine):
    """An engine with far too many and too long names."""

    async def serves(self) -> Collection[str]:
        return [f"{number:04}{'x' * 10_000}" for number in range(NAMES_SERVED)]


@pytest.fixture
def engine() -> CollectingEngine:
    return Serving("shelf")


async def read(relay: RunningRelay, proof: str | None = None) -> httpx.Response:
    proof = proof or relay.settings.signer().prove(new_probe()[1])
    async with httpx.AsyncClient(base_url=relay.url, timeout=60) as http:
        return await http.get("/waits/report", headers={"Authorization": f"Bearer {proof}"})


async def test_report_has_what_a_worker_needs_and_no_secret(relay: RunningRelay, fake: FakeServer) -> None:
    """Engines, server and store are reported; names are cut in number and length."""
    reply = await read(relay)
    report = RelayReport.model_validate_json(reply.content)
    (shelf,) = report.engines
    assert (shelf.name, len(shelf.serves)) == ("shelf", MAX_SERVED)
    assert max(map(len, shelf.serves)) <= MAX_TEXT_CHARS
    assert (report.server_url, report.server_problem, report.store_problem) == (fake.url, None, None)
    secret = relay.settings.relay_secret[0].get_secret_value()
    assert not any(each in reply.text for each in (secret, fake.token, fake.payload_key))


async def test_report_needs_a_proof_of_its_own(relay: RunningRelay) -> None:
    """A proof with another secret, a callback URL's token and the proofs of a caller get what a stranger gets."""
    own, route = relay.settings.signer(), Route("shelf", {"place": "1"}, "key")
    other = relay.settings.model_copy(update={"relay_secret": []})
    other = Settings.load(**other.model_dump() | {"relay_secret": secrets.token_urlsafe(32)})
    _, probe = new_probe()
    wrong = [other.signer().prove(probe), own.issue(probe), own.prove(route), own.prove(probe, "report"), "x"]
    replies = [await read(relay, proof) for proof in wrong]
    assert {(reply.status_code, reply.content) for reply in replies} == {(401, replies[-1].content)}


async def test_report_shows_whether_the_key_verifies_callbacks(
    relay: RunningRelay, relay_client: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verified callback and a refused signature are reported; a probe and a forged token show nothing."""
    monkeypatch.setattr("awaithumans_relay.monitoring.report.REPORT_EVERY_SECONDS", 0)
    await relay_client.call_back(new_probe()[1])
    await relay_client.post("forged.token", b"{}")
    report = RelayReport.model_validate_json((await read(relay)).content)
    assert (report.callback_verified_at, report.callback_refused_at) == (None, None)
    route = Route("shelf", {"place": "1"}, "key")
    assert (await relay_client.call_back(route)).status_code == 200
    assert (await relay_client.post(relay_client.signer.issue(route), b"{}", "sha256=00")).status_code == 401
    report = RelayReport.model_validate_json((await read(relay)).content)
    assert report.callback_verified_at is not None
    assert report.callback_refused_at is not None
    with pytest.raises(SettingsError, match="AWAITHUMANS_WEBHOOK_KEY on the machine of the relay"):
        check_relay_key(report)


# --- doctor on the machine of a worker


async def doctor(*flags: str) -> tuple[int, dict[str, tuple[str, str]]]:
    done: Any = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "--json", *flags])
    found = {each["check"]: (each["status"], each["detail"]) for each in json.loads(done.stdout)}
    return done.exit_code, found


@pytest.fixture
def worker(relay: RunningRelay, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningRelay:
    """Set the environment of a worker: no key and no database."""
    environment = {
        "URL": fake.url,
        "ADMIN_API_TOKEN": fake.token,
        "RELAY_SECRET": relay.settings.relay_secret[0].get_secret_value(),
        "RELAY_URL": relay.url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    (tmp_path / "worker").mkdir()
    monkeypatch.chdir(tmp_path / "worker")
    return relay


async def test_doctor_of_a_worker_examines_what_a_worker_needs(worker: RunningRelay) -> None:
    """No key and no database is missing on its machine; the running relay reports the rest."""
    code, found = await doctor()
    assert code == 0
    assert found.keys() == {
        "AWAITHUMANS_URL",
        "AWAITHUMANS_ADMIN_API_TOKEN",
        "AWAITHUMANS_RELAY_SECRET",
        "AWAITHUMANS_RELAY_URL",
        "awaithumans server",
        "running relay",
        "engines of the relay",
        "server of the relay",
        "store of the relay",
        "webhook key of the relay",
    }
    assert {status for status, _ in found.values()} == {"ok"}
    assert "accepts AWAITHUMANS_RELAY_SECRET" in found["running relay"][1]
    assert await worker.store.queries.counts() == {}


@pytest.mark.parametrize(
    ("name", "value", "check", "advice"),
    [
        ("RELAY_SECRET", "another secret of thirty-two characters", "running relay", WRONG_RELAY_SECRET),
        ("RELAY_URL", "http://127.0.0.1:9", "running relay", "awaithumans-relay dev"),
        ("RELAY_URL", "", "AWAITHUMANS_RELAY_URL", "is not set"),
        ("ADMIN_API_TOKEN", "wrong", "awaithumans server", "AWAITHUMANS_ADMIN_API_TOKEN"),
    ],
)
async def test_doctor_of_a_worker_reports_each_wrong_setting(
    worker: RunningRelay, monkeypatch: pytest.MonkeyPatch, name: str, value: str, check: str, advice: str
) -> None:
    """Only the check of this setting fails; what depends on it is not checked."""
    monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    code, found = await doctor()
    assert code == 1
    assert [each for each, (status, _) in found.items() if status == "failed"] == [check]
    assert advice.lower() in found[check][1].lower()
    assert found["engines of the relay"][0] == ("ok" if name == "ADMIN_API_TOKEN" else "skipped")


def reported(**fields: Any) -> RelayReport:
    shown: dict[str, Any] = {"version": "0.1.0", "engines": [], "server_url": "http://localhost:3001"}
    return RelayReport.model_validate(shown | fields)


TEMPORAL = EngineReport(name="temporal", state="ok", serves=["default"])


@pytest.mark.parametrize(
    ("engines", "flags", "advice"),
    [
        ([], EngineFlags(None, [], None), "has no engine"),
        ([], EngineFlags("localhost:7233", [], None), "'temporal' (`--temporal ADDRESS`)"),
        ([TEMPORAL], EngineFlags(None, [], "http://lg"), "'langgraph-server' (`--langgraph-server URL`)"),
        ([TEMPORAL], EngineFlags("localhost:7233", [], None, ["payments"]), "--temporal-namespace payments"),
        ([TEMPORAL.model_copy(update={"state": "failing"})], EngineFlags(None, [], None), "its log says why"),
    ],
    ids=["none", "temporal", "langgraph-server", "namespace", "failing"],
)
def test_missing_engine_of_the_relay_is_reported_with_its_flag(
    engines: list[EngineReport], flags: EngineFlags, advice: str
) -> None:
    """A worker that asks through a relay without its engine or namespace would never be woken."""
    with pytest.raises(SettingsError) as raised:
        check_relay_engines(reported(engines=engines), flags)
    assert advice in str(raised.value)


def test_problems_of_the_relay_are_reported_as_its_own() -> None:
    """The text names the machine on which to correct them. Another address of the server is only remarked."""
    settings, at = Settings.load(url="http://localhost:3001"), datetime(2026, 1, 1, 10, tzinfo=UTC)
    with pytest.raises(SettingsError, match="on the machine of the relay"):
        check_relay_server(reported(server_problem="refused"), settings)
    with pytest.raises(SettingsError, match="cannot store answers now: full"):
        check_relay_store(reported(store_problem="full"))
    assert "same server" in check_relay_server(reported(server_url="http://humans:3001"), settings)
    assert "not confirmed yet" in check_relay_key(reported())
    later = at + timedelta(minutes=1)
    assert "10:01 UTC" in check_relay_key(reported(callback_refused_at=at, callback_verified_at=later))


@pytest.mark.parametrize(
    ("variable", "database", "graphs", "role"),
    [
        (None, DEFAULT_DATABASE, False, Role.WORKER),
        ("AWAITHUMANS_WEBHOOK_KEY", DEFAULT_DATABASE, False, Role.RELAY),
        ("AWAITHUMANS_PAYLOAD_KEY", DEFAULT_DATABASE, False, Role.RELAY),
        (None, "postgresql://host/db", False, Role.RELAY),
        (None, DEFAULT_DATABASE, True, Role.RELAY),
    ],
)
def test_role_is_decided_by_what_only_a_relay_has(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str | None,
    database: str,
    graphs: bool,  # noqa: FBT001
    role: Role,
) -> None:
    """A key, a database or a graph makes it the machine of a relay; a relay's file in the folder does so, too."""
    monkeypatch.chdir(tmp_path)
    if variable is not None:
        monkeypatch.setenv(variable, "set")
    assert role_here(database, graphs=graphs, thread=None)[0] == role
    (tmp_path / "awaithumans-relay.db").touch()
    assert role_here(DEFAULT_DATABASE, graphs=False, thread=None)[0] == Role.RELAY
