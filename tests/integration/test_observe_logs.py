"""Log lines of the relay: which wait each is about, and nothing that must not be read there."""

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
from awaithumans_relay.commands import server_check
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.servers import FakeServer
from tests.support.workflows import Decision

ANSWER, PAYLOAD = "what-a-person-wrote", "what-a-person-was-shown"


class Everything(logging.Handler):
    """All records of a process, as text with everything that hangs on them."""

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
def everything() -> Generator[Everything]:
    """The root logger at DEBUG, as an application in trouble sets it; afterwards all loggers are as they were."""
    handler, root = Everything(), logging.getLogger()
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
    """Loggers that somebody has quietened, or taken from the root, as uvicorn's are."""
    for logger in _loggers():
        logger.setLevel(logging.DEBUG)
        if not logger.propagate:
            logger.addHandler(handler)


def post(relay: RunningRelay, token: str, body: bytes, signature: str) -> int:
    """As the awaithumans server does it, without a library whose log would be this process's."""
    connection = http.client.HTTPConnection(relay.url.removeprefix("http://"))
    connection.request("POST", f"/callbacks/{token}", body, {"X-Awaithumans-Signature": signature})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_no_log_says_what_must_not_be_said(
    humans: HumansServer,
    people: People,
    everything: Everything,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    """The whole way, on every logger at DEBUG: asked, called back, refused, swept, failed, delivered; and a store that
    breaks. Neither credentials nor route tokens, nor the question's payload, nor its answer stand in any line."""
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
            while (await relay.store.counts()) != {"delivered": 2}:
                await asyncio.sleep(0.05)
        await relay.store.database.write(lambda db: db.exec_driver_sql("DROP TABLE waits"))
        assert await asyncio.to_thread(post, relay, token, body, sign(body, key)) == 503
    said = everything.text()
    for marker in (
        "sqlalchemy.engine",
        "uvicorn.access",
        "httpx",
        "delivered task",
        "the store is away",
        "refused (401)",
    ):
        assert marker in said, f"{marker} was not heard, so nothing is shown"
    secret = relay.settings.relay_secret[0].get_secret_value()
    unsaid = [humans.token, humans.payload_key, base64.b64encode(key).decode(), key.hex(), secret, ANSWER, PAYLOAD]
    for what in [*unsaid, *tokens]:
        assert what not in said, next(record for record in everything.records if what in f"{vars(record)}").name


async def test_lines_name_their_wait(fake: FakeServer, everything: Everything, tmp_path: Path) -> None:
    """Every line about a wait has the task, the wait and the engine as fields, whatever formatter reads them."""
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


async def test_a_refusal_names_the_task_it_claims(fake: FakeServer, everything: Everything, tmp_path: Path) -> None:
    """Whoever looks for a lost answer finds the task and the reason; a forger writes no lines of theirs."""
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


async def test_json_lines_of_a_relay_with_a_wrong_token(fake: FakeServer, tmp_path: Path) -> None:
    """`--log-format json`: every line is an object. The wrong token is said at the start, and callbacks are taken."""
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
async def test_temporals_own_lines_are_lines_of_the_relays_log(fake: FakeServer, tmp_path: Path) -> None:
    """Temporal goes away under a relay that is connected to it: what its client says of that comes as JSON, too, from a
    logger, and neither the answer nor a secret is in it."""
    temporal, secret = TemporalServer(tmp_path / "temporal"), secrets.token_urlsafe(32)
    arguments = ["--log-format", "json", "--log-level", "debug", "--database", "sqlite:///waits.db"]
    relay = RelayServer(tmp_path, fake, ["--temporal", temporal.address, *arguments], secret=secret)  # type: ignore[arg-type]
    async with started(temporal, relay):
        settings = Settings.load(relay_secret=secret, relay_url=relay.url)
        server = Server(RunningRelay(relay.url, settings, None), fake)  # type: ignore[arg-type]
        routes = [Route("temporal", {"namespace": "default", "workflow_id": f"w-{n}"}, f"question-{n}") for n in (1, 2)]
        await server.call_back(routes[0], "task-1", response={"note": ANSWER})
        await said(relay, "parked task task-1")  # there is no such workflow, says a Temporal that is there
        await asyncio.to_thread(temporal.stop)
        await server.call_back(routes[1], "task-2", response={"note": ANSWER})
        await said(relay, "task task-2 not delivered")
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


async def said(relay: RelayServer, words: str, seconds: float = 30.0) -> None:
    """Until the relay's log has these words."""
    async with asyncio.timeout(seconds):
        while words not in relay.process.output():
            await asyncio.sleep(0.05)


async def test_what_a_relay_says_at_its_start() -> None:
    """A server elsewhere that does not answer, and an address at which it will not find this relay; or nothing."""
    elsewhere = {"url": "http://humans.invalid", "admin_api_token": "t"}
    unset = await server_check.problems(Settings.load(**elsewhere))
    local = await server_check.problems(Settings.load(**elsewhere, relay_url="http://localhost:8787"))
    assert ["is not set" in unset[0], "does not answer at http://humans.invalid" in unset[1]] == [True, True]
    assert "AWAITHUMANS_RELAY_URL is http://localhost:8787" in local[0]


async def test_a_relay_that_is_right_says_nothing_at_its_start(fake: FakeServer) -> None:
    """No warning without a reason."""
    assert await server_check.problems(Settings.load(url=fake.url, admin_api_token=fake.token)) == []
