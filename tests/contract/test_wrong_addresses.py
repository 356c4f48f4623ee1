"""What every caller reports about an address at which nothing answers, or another service, or another relay."""

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from awaithumans_adapters.langgraph import await_human
from awaithumans_adapters.temporal import HumanTaskActivities
from awaithumans_adapters.temporal.activities import human_tasks as temporal_activities
from awaithumans_core import (
    AuthenticationError,
    AwaitHumansError,
    HumanTask,
    HumanTasks,
    Route,
    Settings,
    SyncTaskClient,
    TaskClient,
)
from awaithumans_core.http.local_server import DISCOVERY_FILE
from awaithumans_core.services import RELAY, SERVER, WRONG_RELAY_SECRET
from awaithumans_relay.availability import server_causes
from awaithumans_relay.commands import checks
from awaithumans_relay.commands.probe import check_relay
from tests.support.decisions import Decision
from tests.support.engines import CollectingEngine
from tests.support.graphs import State
from tests.support.relay import RunningRelay, changed, running_relay
from tests.support.servers import FakeServer

TASK_ID = "a" * 32
NOTHING_LISTENS = "http://127.0.0.1:9"
Caller = Callable[[Settings], Awaitable[None]]


def question() -> HumanTask[Decision]:
    return HumanTask(task="Refund?", response_schema=Decision, timeout_seconds=900)


async def client_creates(settings: Settings) -> None:
    async with TaskClient(settings=settings, patience=0) as client:
        await client.create(question())


async def client_reads(settings: Settings) -> None:
    async with TaskClient(settings=settings, patience=0) as client:
        await client.get(TASK_ID)


async def sync_client_polls(settings: Settings) -> None:
    with SyncTaskClient(settings=settings, patience=0) as client:
        await asyncio.to_thread(client.poll, TASK_ID)


def impatient(settings: Settings) -> HumanTasks:
    return HumanTasks(settings, patience=0.001)


async def engine_opens(settings: Settings) -> None:
    task = question()
    await impatient(settings).open(task.body(), Route("shelf", {"place": "1"}, task.idempotency_key))


async def engine_opens_sync(settings: Settings) -> None:
    task = question()
    route = Route("shelf", {"place": "1"}, task.idempotency_key)
    await asyncio.to_thread(impatient(settings).open_sync, task.body(), route)


async def activity_opens(settings: Settings) -> None:
    environment = ActivityEnvironment(client=await Client.connect("127.0.0.1:9", lazy=True))  # only its codec is used
    await environment.run(HumanTaskActivities(settings).open_wait, question().body())


async def node_asks(settings: Settings) -> None:
    async def ask(_: State) -> State:
        await await_human(task="Refund?", response_schema=Decision, human_tasks=impatient(settings))
        return {}

    builder: Any = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    graph = builder.compile(checkpointer=InMemorySaver())
    await graph.ainvoke({}, {"configurable": {"thread_id": secrets.token_hex(8)}})


async def doctor_checks_the_server(settings: Settings) -> None:
    await checks.check_server(settings)


async def sweep_logs(settings: Settings) -> None:
    try:
        await client_reads(settings)
    except AwaitHumansError as error:
        raise AwaitHumansError(server_causes.describe(error)) from error


async def doctor_probes_the_relay(settings: Settings) -> None:
    await check_relay(settings, "sqlite:///none.db")


OF_RELAY: dict[str, Caller] = {
    "engine": engine_opens,
    "sync engine": engine_opens_sync,
    "activity": activity_opens,
    "node": node_asks,
}
OF_SERVER: dict[str, Caller] = {
    **OF_RELAY,
    "client, create": client_creates,
    "client, get": client_reads,
    "sync client, poll": sync_client_polls,
    "relay's start and doctor": doctor_checks_the_server,
    "sweep": sweep_logs,
}


async def said(caller: Caller, settings: Settings) -> str:
    try:
        await caller(settings)
    except Exception as error:  # an activity raises the error of Temporal
        return str(error)
    raise AssertionError(f"{caller} reports nothing")


class AnotherService(BaseHTTPRequestHandler):
    """Answers every request with the status in the first part of its path, as JSON or as a page."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, status, form, *_ = self.path.split("/")
        body = json.dumps({"detail": "Not Found"}).encode() if form == "json" else b"<html>"
        self.send_response(int(status))
        self.send_header("Content-Type", "application/json" if form == "json" else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def another_service() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), AnotherService)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
async def right(fake: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningRelay]:
    """Run a relay with one engine; its settings are right for every caller."""
    async with running_relay([CollectingEngine("shelf")], fake, tmp_path_factory.mktemp("addresses")) as relay:
        yield relay


@pytest.fixture(autouse=True)
def impatient_activities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal_activities, "PATIENCE_SECONDS", 0.001)


SITUATIONS = {
    "nothing listens": (NOTHING_LISTENS, "silent"),
    "unknown host": ("http://no-such-host.invalid:3001", "silent"),
    "plain HTTP at https": ("https://{another}", "silent"),
    "404": ("http://{another}/404/json", "other"),
    "405": ("http://{another}/405/json", "other"),
    "404, a page": ("http://{another}/404/page", "other"),
    "200, a page": ("http://{another}/200/page", "other"),
    "501, a page": ("http://{another}/501/page", "other"),
}
QUICK = {"nothing listens", "404"}
HINTS = {"unknown host": "no host of this name is known here", "plain HTTP at https": "write http://"}


@pytest.mark.parametrize(
    "situation", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.edges) for each in SITUATIONS]
)
@pytest.mark.parametrize("service", [SERVER, RELAY], ids=["server", "relay"])
async def test_error_names_the_url_its_setting_and_what_to_start(
    right: RunningRelay, another_service: str, service: Any, situation: str
) -> None:
    """All callers use the same words for the same situation."""
    address, kind = SITUATIONS[situation]
    address = address.format(another=another_service)
    settings = changed(right.settings, **{"url" if service is SERVER else "relay_url": address})
    callers = OF_SERVER if service is SERVER else OF_RELAY | {"doctor": doctor_probes_the_relay}
    texts = dict(zip(callers, await asyncio.gather(*(said(each, settings) for each in callers.values())), strict=True))
    advice = service.if_silent if kind == "silent" else service.if_other
    for caller, text in texts.items():
        assert address in text, (caller, text)
        assert f"({service.setting})" in text, (caller, text)
        assert advice in text, (caller, text)
        assert HINTS.get(situation, "") in text, (caller, text)


@pytest.mark.parametrize("situation", sorted(QUICK))
async def test_local_server_at_another_port_is_named(
    right: RunningRelay, another_service: str, situation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`awaithumans dev` chooses another port if its own is taken, which AWAITHUMANS_URL then does not follow."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / DISCOVERY_FILE).write_text('{"url": "http://localhost:3004"}')
    address = SITUATIONS[situation][0].format(another=another_service)
    settings = changed(right.settings, url=address)
    for caller, text in [(name, await said(each, settings)) for name, each in OF_SERVER.items()]:
        assert (
            f"A local `awaithumans dev` has announced itself at http://localhost:3004, and not at {address}" in text
        ), (
            caller,
            text,
        )


async def test_wrong_token_is_named_with_the_server_that_refuses_it(right: RunningRelay) -> None:
    """The token may be right, and the address that of another server."""
    settings = changed(right.settings, admin_api_token="another")
    for caller, text in [(name, await said(each, settings)) for name, each in OF_SERVER.items()]:
        assert "AWAITHUMANS_ADMIN_API_TOKEN" in text, (caller, text)
        assert right.settings.url in text, (caller, text)
        assert "(AWAITHUMANS_URL)" in text, (caller, text)
    with pytest.raises(AuthenticationError):
        await client_creates(settings)


async def test_wrong_relay_secret_has_the_same_words_on_both_sides(
    right: RunningRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """The errors of all callers and the relay's log have one sentence. The log combines what is repeated."""
    settings = changed(right.settings, relay_secret=secrets.token_urlsafe(32))
    for name, caller in (OF_RELAY | {"doctor": doctor_probes_the_relay}).items():
        text = await said(caller, settings)
        assert WRONG_RELAY_SECRET.lower() in text.lower(), (name, text)
        assert right.url in text, (name, text)
    assert any(WRONG_RELAY_SECRET in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("caller", "flag"), [(activity_opens, "--temporal ADDRESS"), (node_asks, "--graph NAME=module:attribute")]
)
async def test_relay_without_the_engine_names_the_flag(right: RunningRelay, caller: Caller, flag: str) -> None:
    """The text for a worker names the flag with which the relay gets its engine."""
    text = await said(caller, right.settings)
    assert f"(`{flag}`); it has: shelf" in text
    assert "Start the relay with this engine" in text
