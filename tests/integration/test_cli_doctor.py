"""`awaithumans-relay doctor` finds what would stop an answer, states the remedy, and leaves no trace."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from devservers import TemporalServer, free_port
from fastapi import FastAPI, Request, Response
from typer.testing import CliRunner

from awaithumans_core import Route
from awaithumans_relay.cli import cli
from awaithumans_relay.store import Store
from tests.support.authority import Authority
from tests.support.engines import CollectingEngine
from tests.support.relay import RunningRelay, served
from tests.support.servers import FakeServer


async def doctor(*flags: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code, and for each check its result and text."""
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "--json", *flags])
    found = {each["check"]: (each["status"], each["detail"]) for each in json.loads(done.stdout)}
    return done.exit_code, found


def failed(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {check: detail for check, (status, detail) in found.items() if status == "failed"}


@pytest.fixture
def relay(relay: RunningRelay, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningRelay:
    """Set the environment of the running relay."""
    environment = {
        "URL": fake.url,
        "ADMIN_API_TOKEN": fake.token,
        "PAYLOAD_KEY": fake.payload_key,
        "RELAY_SECRET": relay.settings.relay_secret[0].get_secret_value(),
        "RELAY_URL": relay.url,
        "RELAY_DATABASE": f"sqlite:///{tmp_path / 'relay.db'}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    return relay


async def test_doctor_of_a_healthy_relay_passes_and_leaves_no_trace(
    relay: RunningRelay, engine: CollectingEngine, fake: FakeServer
) -> None:
    """The probe is delivered without waking a caller and then deleted, and no secret is shown."""
    code, found = await doctor()
    assert (code, failed(found)) == (0, {})
    assert found["engines"][0] == "skipped"
    # The callback of this test is signed by the test and not by the server.
    assert "cannot confirm that the server signs with it" in found["AWAITHUMANS_WEBHOOK_KEY"][1]
    assert found["running relay"] == (
        "ok",
        f"accepted a probe at {relay.url}, stored it and delivered it; no caller was woken",
    )
    assert await relay.store.queries.counts() == {}
    assert engine.calls == 0
    said = json.dumps(found)
    assert not any(secret in said for secret in (fake.token, fake.payload_key))
    assert relay.settings.relay_secret[0].get_secret_value() not in said


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ADMIN_API_TOKEN", "wrong", {"awaithumans server": "AWAITHUMANS_ADMIN_API_TOKEN"}),
        ("URL", "http://127.0.0.1:1", {"awaithumans server": "does not answer at http://127.0.0.1:1"}),
        ("RELAY_SECRET", "another secret of thirty-two characters", {"running relay": "AWAITHUMANS_RELAY_SECRET"}),
        (
            "PAYLOAD_KEY",
            base64.urlsafe_b64encode(bytes(range(32))).decode(),
            {"running relay": "webhook key is different"},
        ),
        ("RELAY_URL", "http://127.0.0.1:1", {"running relay": "Start the relay"}),
        (
            "RELAY_SECRET",
            "",
            {"AWAITHUMANS_RELAY_SECRET": "is not set"},
        ),
        (
            "RELAY_URL",
            "",
            {"AWAITHUMANS_RELAY_URL": "is not set"},
        ),
        ("URL", "no address", {"AWAITHUMANS_URL": "http://"}),
        ("RELAY_OPERATOR_TOKEN", "short", {"AWAITHUMANS_RELAY_OPERATOR_TOKEN": "at least 32"}),
        (
            "RELAY_DATABASE",
            "sqlite:///nowhere/waits.db",
            {"database": "there is no database"},
        ),
    ],
)
async def test_doctor_reports_each_wrong_setting(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: dict[str, str]
) -> None:
    """A wrong setting is reported with its remedy by its own check, and the other checks pass."""
    monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    code, found = await doctor()
    assert code == 1
    assert failed(found).keys() == told.keys()
    for check, words in told.items():
        assert words in failed(found)[check]
    assert await relay.store.queries.counts() == {}  # no probe is sent that could not be traced


async def test_doctor_reports_malformed_settings_and_runs_the_other_checks(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each malformed setting is reported by name, and checks that do not need it still run."""
    monkeypatch.setenv("AWAITHUMANS_URL", "no address")
    monkeypatch.setenv("AWAITHUMANS_PUBLIC_URL", "none either")
    code, found = await doctor()
    assert (code, set(failed(found))) == (1, {"AWAITHUMANS_URL", "AWAITHUMANS_PUBLIC_URL"})
    assert found["awaithumans server"] == ("skipped", "not checked: it needs AWAITHUMANS_URL")
    assert found["running relay"][0] == "ok"
    assert found["AWAITHUMANS_RELAY_OPERATOR_TOKEN"][0] == "skipped"


async def test_doctor_detects_the_database_of_another_relay(relay: RunningRelay, tmp_path: Path) -> None:
    """If the relay accepts an answer that is not in this database, it stores its waits elsewhere."""
    other = Store(f"sqlite:///{tmp_path / 'other.db'}")
    await other.start()
    await other.stop()
    _, found = await doctor("--database", f"sqlite:///{tmp_path / 'other.db'}")
    assert "keeps its waits in another database" in failed(found)["running relay"]


@pytest.mark.parametrize(("status", "told"), [(307, "redirects (307)"), (404, "Is this the relay?"), (503, "database")])
async def test_doctor_distinguishes_what_replies_at_the_relays_address(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch, status: int, told: str
) -> None:
    """A redirect, a proxy without the path and a relay without its database give different findings."""
    app = FastAPI()

    @app.post("/{path:path}")
    async def refuse(path: str, _: Request) -> Response:
        return Response(status_code=status, headers={"Location": "https://relay.example"} if status == 307 else {})

    port = free_port()
    monkeypatch.setenv("AWAITHUMANS_RELAY_URL", f"http://127.0.0.1:{port}")
    async with served(app, port, log_level="critical"):
        _, found = await doctor()
    assert told in failed(found)["running relay"]


@pytest.mark.edges
@pytest.mark.parametrize(
    ("flags", "check", "told"),
    [
        (["--temporal", "127.0.0.1:1"], "Temporal 127.0.0.1:1", "unreachable"),
        (["--langgraph-server", "http://127.0.0.1:1"], "LangGraph server http://127.0.0.1:1", "unreachable"),
        (["--langgraph-server", "127.0.0.1:1"], "LangGraph server 127.0.0.1:1", "write the address with http"),
        (["--graph", "g=nowhere:graph"], "graph g=nowhere:graph", "No module named 'nowhere'"),
        (["--graph", "g"], "graph g", "NAME=module:attribute"),
    ],
)
async def test_doctor_reports_an_unreachable_engine(
    relay: RunningRelay, flags: list[str], check: str, told: str
) -> None:
    """Every configured engine is checked, and an unreachable one is reported with the remedy."""
    code, found = await doctor(*flags)
    assert code == 1
    assert failed(found).keys() == {check}
    assert told in failed(found)[check]


async def test_doctor_reports_an_unknown_temporal_namespace(relay: RunningRelay, temporal: TemporalServer) -> None:
    """The finding names the setting, because the relay could never deliver to this namespace."""
    flags = ["--temporal", temporal.address, "--temporal-namespace", "default", "--temporal-namespace", "pyments"]
    code, found = await doctor(*flags)
    assert code == 1
    (reported,) = failed(found).values()
    assert reported.startswith("Temporal has no namespace 'pyments'")
    assert "--temporal-namespace" in reported


async def test_doctor_passes_reachable_engines(
    relay: RunningRelay, temporal: TemporalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal and a graph with its checkpointer pass."""
    (tmp_path / "graph_of_the_doctor.py").write_text(GRAPH)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--temporal", temporal.address, "--graph", "refunds=graph_of_the_doctor:graph"]
    code, found = await doctor(*flags)
    assert (code, failed(found)) == (0, {})
    temporal_check, graph_check = f"Temporal {temporal.address}", "graph refunds=graph_of_the_doctor:graph"
    assert found[graph_check] == ("ok", "reachable")
    assert found[temporal_check][1].startswith("reachable; search attribute AwaitHumansAssignees ")


async def test_doctor_detects_another_application_at_the_servers_address(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web app that serves a page for every path is not taken for the awaithumans server."""
    app = FastAPI()

    @app.get("/{path:path}")
    async def page(path: str) -> Response:
        return Response("<!doctype html>", media_type="text/html")

    port = free_port()
    monkeypatch.setenv("AWAITHUMANS_URL", f"http://127.0.0.1:{port}")
    async with served(app, port, log_level="critical"):
        code, found = await doctor()
    assert (code, set(failed(found))) == (1, {"awaithumans server"})
    assert "AWAITHUMANS_URL" in failed(found)["awaithumans server"]


async def test_doctor_reports_an_untrusted_certificate(
    relay: RunningRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding advises to trust the authority, not to start a relay that is running."""
    certificate, key = Authority(tmp_path).issue("relay")
    port = free_port()
    monkeypatch.setenv("AWAITHUMANS_RELAY_URL", f"https://localhost:{port}")
    async with served(FastAPI(), port, log_level="critical", ssl_certfile=certificate, ssl_keyfile=key):
        _, found = await doctor()
    assert "SSL_CERT_FILE" in failed(found)["running relay"]
    assert "start the relay" not in failed(found)["running relay"].lower()


GRAPH = """
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

builder = StateGraph(dict)
builder.add_node("node", lambda state: state)
builder.add_edge(START, "node")
builder.add_edge("node", END)
graph = builder.compile(checkpointer=InMemorySaver())
"""


async def test_missing_tasks_are_reported_by_doctor_and_readyz(relay: RunningRelay) -> None:
    """`doctor` reports the first 404 and `/readyz` a lasting majority; callbacks are still taken."""
    for number in range(2):
        await relay.store.intake.register(
            f"unknown-{number}", Route("shelf", {"place": str(number)}, f"key-{number}"), 900
        )
        await relay.check_now(f"unknown-{number}")
    async with asyncio.timeout(60):
        while (await relay.store.missing_tasks.listed(9))[0] < 2:
            await asyncio.sleep(0.05)
    code, found = await doctor()
    assert code == 1
    assert set(failed(found)) == {"tasks of open waits"}
    assert "2 tasks of open waits are missing" in failed(found)["tasks of open waits"]
    assert "unknown-0" in failed(found)["tasks of open waits"]
    for number in range(2):
        await relay.confirm_deletion(f"unknown-{number}")
    async with httpx.AsyncClient(base_url=relay.url) as http, asyncio.timeout(60):
        while (ready := await http.get("/readyz")).json()["status"] != "degraded":
            await asyncio.sleep(0.05)
    assert ready.status_code == 200
    assert ready.json()["missing_tasks"]["missing"] == 2
    assert await relay.store.queries.counts() == {"open": 2}


async def test_doctor_prints_aligned_lines_and_a_summary(relay: RunningRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check has one marked line with its findings below, within the terminal's width."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", "wrong")
    done: Any = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor"])
    assert done.exit_code == 1
    assert "✓ AWAITHUMANS_URL\n" in done.stdout
    assert "✗ awaithumans server\n" in done.stdout
    assert "1 of 11 checks failed" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
