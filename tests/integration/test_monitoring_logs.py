"""Log lines of the relay: each names its wait, and none holds secrets or answers."""

import asyncio
import base64
import http.client
import json
import logging
import secrets
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, RelayServer, TemporalServer, started

from awaithumans_core import HumanTask, Outcome, Route, Settings
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay.commands import startup_checks
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.servers import FakeServer
from tests.support.workflows import Decision

ANSWER, PAYLOAD = "what-a-person-wrote", "what-a-person-was-shown"


class AllRecords(logging.Handler):
    """Collect all records of the process as text, with all their attributes."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def text(self) -> str:
        return "\n".join(
            f"{record.name} {record.getMessage()} {vars(record)}"
            + "".join(traceback.format_exception(record.exc_info[1]) if record.exc_info else [])
            for record in self.records
        )

    def of_relay(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.name == "awaithumans.relay"]


@pytest.fixture
def everything() -> Generator[AllRecords]:
    """Set the root logger to DEBUG, and restore all loggers afterwards."""
    handler, root = AllRecords(), logging.getLogger()
    before = {logger: logger.level for logger in (root, *_loggers())}
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    for logger in (root, *_loggers()):
        logger.removeHandler(handler)
        logger.setLevel(before.get(logger, logging.NOTSET))


def _loggers() -> list[logging.Logger]:
    return [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]


def all_at_debug(handler: logging.Handler) -> None:
    """Enable loggers that were silenced or detached from the root, as those of uvicorn are."""
    for logger in _loggers():
        logger.setLevel(logging.DEBUG)
        if not logger.propagate:
            logger.addHandler(handler)


def post(relay: RunningRelay, token: str, body: bytes, signature: str) -> int:
    """Post as the awaithumans server does, without a client library that logs in this process."""
    connection = http.client.HTTPConnection(relay.url.removeprefix("http://"))
    connection.request("POST", f"/callbacks/{token}", body, {"X-Awaithumans-Signature": signature})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_no_log_record_holds_credentials_payload_or_answer(
    humans: HumansServer,
    people: People,
    everything: AllRecords,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    """With every logger at DEBUG, no record of any stage holds credentials, route tokens, payload or answer.

    The stages: ask, callback, refusal, sweep, failed delivery, delivery and a failing store.
    """
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if kind == "postgres" else None
    failures: list[Exception] = [ConnectionError("away")]

    class Stumbling(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            if failures:
                raise failures.pop()
            await super().deliver(route, outcome)

    shelf, key = Stumbling(), derive_webhook_key(humans.payload_key)
    tokens: list[str] = []
    database = postgres.database() if postgres else None
    async with running_relay([shelf], humans, tmp_path, database=database, access_log=True) as relay:
        all_at_debug(everything)
        asker, signer = relay.human_tasks(), relay.settings.signer()

        async def ask(place: str) -> tuple[str, Route, dict[str, Any]]:
            name = f"{place}-{tmp_path.name}"
            question = HumanTask(task=name, payload={"text": PAYLOAD}, response_schema=Decision, idempotency_key=name)
            route = Route("shelf", {"place": place}, name)
            tokens.append(signer.issue(route))
            return (await asker.open(question.body(), route)).task_id, route, question.body()

        task_id, route, _ = await ask("called-back")
        body = json.dumps(
            {"task_id": task_id, "idempotency_key": route.idempotency_key, "status": "completed"}
            | {"response": {"approved": True, "note": ANSWER}}
        ).encode()
        token = signer.issue(route)
        assert await asyncio.to_thread(post, relay, token, body, "sha256=" + "0" * 64) == 401
        assert await asyncio.to_thread(post, relay, token, body, sign(body, key)) == 200
        swept, _, _ = await ask("swept")
        await people.complete(swept, {"approved": True, "note": ANSWER})
        await relay.check_now(swept)
        await shelf.until(2)
        async with asyncio.timeout(60):
            while (await relay.store.queries.counts()) != {"delivered": 2}:
                await asyncio.sleep(0.05)
        await relay.store.database.write(lambda db: db.exec_driver_sql("DROP TABLE waits"))
        assert await asyncio.to_thread(post, relay, token, body, sign(body, key)) == 503
    logged = everything.text()
    for marker in (
        "sqlalchemy.engine",
        "uvicorn.access",
        "httpx",
        "delivered task",
        "the store is unavailable",
        "refused (401)",
    ):
        assert marker in logged, f"{marker} was not logged, so the test shows nothing"
    secret = relay.settings.relay_secret[0].get_secret_value()
    unsaid = [humans.token, humans.payload_key, base64.b64encode(key).decode(), key.hex(), secret, ANSWER, PAYLOAD]
    for what in [*unsaid, *tokens]:
        assert what not in logged, next(record for record in everything.records if what in f"{vars(record)}").name


async def test_records_about_a_wait_have_its_fields(fake: FakeServer, everything: AllRecords, tmp_path: Path) -> None:
    """Every record about a wait has task, wait and engine as fields, for any formatter."""
    route = Route("shelf", {"place": "here"}, "question-1")
    shelf = CollectingEngine()
    async with running_relay([shelf], fake, tmp_path) as relay:
        server = Server(relay, fake)
        await server.call_back(route)
        await relay.wait_for("task-1", "delivered")
        await server.http.aclose()
    lines = [record for record in everything.of_relay() if "task-1" in record.getMessage()]
    assert len(lines) == 2
    for record in lines:
        fields = {name: getattr(record, name, None) for name in ("task_id", "wait_id", "engine")}
        assert fields == {"task_id": "task-1", "wait_id": route.digest, "engine": "shelf"}


async def test_refusal_names_the_claimed_task_and_the_reason(
    fake: FakeServer, everything: AllRecords, tmp_path: Path
) -> None:
    """An operator finds the task of a refused answer, and a forger cannot add lines of their own."""
    async with running_relay([CollectingEngine()], fake, tmp_path) as relay:
        server = Server(relay, fake)
        headers = {"X-Awaithumans-Task-Id": "task-7 delivered\tto", "X-Awaithumans-Signature": "sha256="}
        await server.http.post("/callbacks/forged.token", content=b"{}", headers=headers)
        await server.http.put("/waits/task-8%0Aforged", json={"timeout_seconds": 9})
        await server.http.aclose()
    refused = [record for record in everything.of_relay() if record.levelno == logging.WARNING]
    assert [getattr(record, "task_id", None) for record in refused] == ["task-7?delivered?to", "task-8?forged"]
    assert "not signed with this relay's AWAITHUMANS_RELAY_SECRET" in refused[0].getMessage()
    assert all("\n" not in record.getMessage() for record in refused)


async def test_json_log_reports_a_wrong_token_at_the_start(fake: FakeServer, tmp_path: Path) -> None:
    """With `--log-format json` every line is an object, and callbacks are accepted despite the wrong token."""
    route = Route("nowhere", {"place": "here"}, "question-1")
    secret = secrets.token_urlsafe(32)
    relay = RelayServer(
        tmp_path,
        fake,  # type: ignore[arg-type]  # it needs an address and keys
        ["--langgraph-server", "http://127.0.0.1:9", "--log-format", "json", "--database", "sqlite:///waits.db"],
        secret=secret,
        env={"AWAITHUMANS_ADMIN_API_TOKEN": "a-wrong-token"},
    )
    async with started(relay):
        settings = Settings.load(relay_secret=secret, relay_url=relay.url)
        server = Server(RunningRelay(relay.url, settings, None), fake)  # type: ignore[arg-type]  # its store is its own
        assert (await server.call_back(route)).status_code == 200
        assert (await server.post("forged.token", b"{}")).status_code == 401
        await server.http.aclose()
        async with asyncio.timeout(60):
            while "refuses AWAITHUMANS_ADMIN_API_TOKEN" not in relay.process.output():
                await asyncio.sleep(0.05)
    lines = [json.loads(line) for line in relay.process.output().splitlines()]
    stored = next(line for line in lines if line.get("task_id") == "task-1")
    assert {"time", "level", "logger", "message", "wait_id"} <= stored.keys()
    assert stored["wait_id"] == route.digest
    assert "a-wrong-token" not in relay.process.output()


@pytest.mark.edges
async def test_temporals_client_logs_through_the_relays_format(fake: FakeServer, tmp_path: Path) -> None:
    """When Temporal goes down, its client's lines come as JSON from a logger, without answer or secret."""
    temporal, secret = TemporalServer(tmp_path / "temporal"), secrets.token_urlsafe(32)
    arguments = ["--log-format", "json", "--log-level", "debug", "--database", "sqlite:///waits.db"]
    relay = RelayServer(tmp_path, fake, ["--temporal", temporal.address, *arguments], secret=secret)  # type: ignore[arg-type]
    async with started(temporal, relay):
        settings = Settings.load(relay_secret=secret, relay_url=relay.url)
        server = Server(RunningRelay(relay.url, settings, None), fake)  # type: ignore[arg-type]
        routes = [Route("temporal", {"namespace": "default", "workflow_id": f"w-{n}"}, f"question-{n}") for n in (1, 2)]
        await server.call_back(routes[0], "task-1", response={"note": ANSWER})
        await logged(relay, "parked task task-1")  # a reachable Temporal reports that there is no such workflow
        await asyncio.to_thread(temporal.stop)
        await server.call_back(routes[1], "task-2", response={"note": ANSWER})
        await logged(relay, "delivery failed: task task-2")
        tokens = [server.signer.issue(route) for route in routes]
        await server.http.aclose()
    lines = [json.loads(line) for line in relay.process.output().splitlines()]
    temporals = [line for line in lines if line["logger"] == "awaithumans.relay.temporal"]
    assert [(line["level"], "signal_workflow_execution" in line["message"]) for line in temporals[:1]] == [
        ("warning", True)
    ]
    assert temporals[0].keys() == {"time", "level", "logger", "message"}
    for hidden in (secret, fake.token, fake.payload_key, ANSWER, *tokens):
        assert hidden not in relay.process.output()


async def logged(relay: RelayServer, words: str, seconds: float = 30.0) -> None:
    """Wait until the relay's log contains these words."""
    async with asyncio.timeout(seconds):
        while words not in relay.process.output():
            await asyncio.sleep(0.05)


async def test_start_warns_about_unreachable_addresses() -> None:
    """The relay warns about a server that does not reply and an address at which it cannot be reached itself."""
    elsewhere = {"url": "http://humans.invalid", "admin_api_token": "t"}
    unset = await startup_checks.problems(Settings.load(**elsewhere))
    local = await startup_checks.problems(Settings.load(**elsewhere, relay_url="http://localhost:8787"))
    assert ["is not set" in unset[0], "does not answer at http://humans.invalid" in unset[1]] == [True, True]
    assert "AWAITHUMANS_RELAY_URL is http://localhost:8787" in local[0]


async def test_start_of_a_correct_relay_logs_no_warning(fake: FakeServer) -> None:
    """A relay with correct settings logs no warning."""
    assert await startup_checks.problems(Settings.load(url=fake.url, admin_api_token=fake.token)) == []
