"""The sweep on a real table: which failures it survives, and how it finds answers before their callbacks."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
from devservers import free_port
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from awaithumans_core import HumanTask, Route, TaskClient
from awaithumans_core.clock import SystemClock
from awaithumans_core.deleted_tasks import Rule
from awaithumans_core.schedule import MAX_CHECK_SECONDS
from awaithumans_core.testing import FakeHumans, faults
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import Store
from awaithumans_relay.sweep.sweeper import Sweeper
from tests.support.engines import CollectingEngine
from tests.support.relay import running_relay
from tests.support.servers import FakeServer
from tests.support.workflows import Decision

MONTH_SECONDS = 30 * 24 * 3600


class ServerFaults:
    """Middleware before the task server: when closed it sends one reply to all; a `slow` task is never read."""

    def __init__(self, humans: FakeHumans) -> None:
        self._humans = humans
        self.shut: Response | None = None
        self.slow: str | None = None
        self.knocks: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.knocks.append(time.monotonic())
        if self.slow is not None and Request(scope).url.path.endswith(self.slow):
            await asyncio.Event().wait()
        await (self.shut or self._humans.app)(scope, receive, send)


@pytest.fixture
async def task_server() -> AsyncGenerator[FakeHumans]:
    async with FakeHumans(clock=SystemClock()) as humans:
        yield humans


@pytest.fixture
def server_faults(task_server: FakeHumans) -> ServerFaults:
    return ServerFaults(task_server)


@pytest.fixture
async def reader(task_server: FakeHumans, server_faults: ServerFaults) -> AsyncGenerator[TaskClient]:
    """Yield the sweep's client."""
    settings = task_server.settings()
    async with TaskClient(settings=settings, patience=0, transport=httpx.ASGITransport(server_faults)) as client:
        yield client


async def ask(task_server: FakeHumans, store: Store, count: int, engine: str = "shelf") -> list[str]:
    """Register this many open waits whose check is due, and return their task ids."""
    asked: list[str] = []
    async with task_server.client() as client:
        for _ in range(count):
            task = await client.create(HumanTask(task="swept?", response_schema=Decision))
            route = Route(engine, {"place": task.task_id}, task.idempotency_key or "")
            await store.intake.register(task.task_id, route, 900)
            await store.checks.postpone(await store.queries.find(task.task_id), 0)
            asked.append(task.task_id)
    return asked


async def until(store: Store, state: str, count: int, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while (await store.queries.counts()).get(state, 0) < count:
            await asyncio.sleep(0.05)


@pytest.mark.edges
@pytest.mark.parametrize(
    ("status", "requests"),
    [(503, 12), (401, 12), (403, 42)],
    ids=["down", "token-revoked", "no-operator-any-more"],
)
async def test_sweep_survives_an_outage_with_few_requests(
    task_server: FakeHumans,
    server_faults: ServerFaults,
    reader: TaskClient,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    status: int,
    requests: int,
) -> None:
    """Forty checks due in an outage cause few requests and one log line; afterwards every answer is found.

    A refusal of one task may concern that task only, so each is read once before its check is postponed. The list is
    asked as well.
    """
    caplog.set_level(logging.WARNING)
    for task_id in await ask(task_server, store, 40):
        task_server.complete(task_id, {"approved": True})
    server_faults.shut = Response('{"detail": "no"}', status, media_type="application/json")
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await asyncio.sleep(1.5)
        assert len(server_faults.knocks) <= requests
        server_faults.shut = None
        await until(store, "answered", 40)
    levels = [record.levelname for record in caplog.records if "read again at growing" not in record.message]
    assert levels in (["WARNING", "ERROR", "WARNING"], ["ERROR", "WARNING"])
    assert ("AWAITHUMANS_ADMIN_API_TOKEN" in caplog.text) == (status != 503)


SHORTLY = Rule(seconds=1.0)
"""Shortened for tests in real time: a deletion is confirmed after a second."""


async def test_deleted_task_ends_its_wait_after_three_readings(
    task_server: FakeHumans,
    server_faults: ServerFaults,
    reader: TaskClient,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The wait gets that end and the dispatcher is woken, while the wait beside it continues."""
    caplog.set_level(logging.WARNING)
    deleted, kept = await ask(task_server, store, 2)
    task_server.delete(deleted)
    woken = asyncio.Event()
    began = time.monotonic()
    async with Sweeper(store, reader, {}, on_answer=woken.set, rule=SHORTLY).running():
        await asyncio.wait_for(woken.wait(), 60)
    assert time.monotonic() - began >= 1.0
    (wait,) = await store.queries.find(deleted)
    assert (wait.state, wait.found_by, wait.outcome and wait.outcome.status) == ("answered", "missing", "not_found")
    assert [wait.state for wait in await store.queries.find(kept)] == ["open"]
    assert [call for _, call in task_server.calls].count("get") >= 4
    (logged,) = caplog.messages
    assert logged == f"task {deleted} was deleted on the awaithumans server: its caller gets TaskNotFoundError"


async def test_switch_of_the_servers_database_ends_no_wait(
    task_server: FakeHumans, reader: TaskClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The doubt is reported once and degrades readiness; once the tasks are back, answers arrive."""
    caplog.set_level(logging.WARNING)
    asked = await ask(task_server, store, 3)
    observer = Observer()
    sweeper = Sweeper(store, reader, {}, on_answer=lambda: None, rule=SHORTLY, observer=observer)

    async def until_doubted(doubted: bool) -> None:  # noqa: FBT001
        async with asyncio.timeout(60):
            while (observer.health.missing_tasks is not None) is not doubted:
                await asyncio.sleep(0.05)

    async with sweeper.running():
        with task_server.another_database():
            await until_doubted(True)
            told = observer.health.report([])
            assert told["status"] == "degraded"
            assert told["missing_tasks"]["missing"] == 3
            assert "another database" in told["missing_tasks"]["reason"]
            assert await store.queries.counts() == {"open": 3}
        for task_id in asked:
            await store.checks.postpone(await store.queries.find(task_id), 0)
        await until_doubted(False)
        assert observer.health.report([])["status"] == "ready"
        task_server.complete(asked[0], {"approved": True})
        await store.checks.postpone(await store.queries.find(asked[0]), 0)
        await until(store, "answered", 1)
    assert await store.queries.counts() == {"open": 2, "answered": 1}
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.parametrize(
    "reply",
    [
        Response("Not Found", 404),
        Response('{"detail": "Not Found"}', 404, media_type="application/json"),
        Response('{"error": "ROUTE_NOT_FOUND"}', 404, media_type="application/json"),
    ],
    ids=["a proxy's page", "another service", "another code"],
)
async def test_404_without_the_code_is_no_deletion(
    task_server: FakeHumans, server_faults: ServerFaults, reader: TaskClient, store: Store, reply: Response
) -> None:
    """Only the API's own TASK_NOT_FOUND counts."""
    await ask(task_server, store, 1)
    server_faults.shut = reply
    async with Sweeper(store, reader, {}, on_answer=lambda: None, rule=Rule(seconds=0.0)).running():
        async with asyncio.timeout(60):
            while not server_faults.knocks:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
    assert not await store.missing_tasks.any()
    assert await store.queries.counts() == {"open": 1}


async def test_record_with_a_hidden_key_is_matched_by_task_id(
    task_server: FakeHumans, reader: TaskClient, store: Store
) -> None:
    """A server may hide keys from the relay's token; the task id identifies the record, and no answer is parked."""
    (task_id,) = await ask(task_server, store, 1)
    task_server.complete(task_id, {"approved": True})
    task_server.fault(faults.changed(idempotency_key=None), times=1000)
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "answered", 1)
    (wait,) = await store.queries.find(task_id)
    assert wait.outcome is not None
    assert wait.outcome.idempotency_key == wait.route.idempotency_key


async def test_hidden_key_of_two_questions_parks_both_waits(
    task_server: FakeHumans, reader: TaskClient, store: Store
) -> None:
    """If waits name different questions for one task, nothing shows whose answer it is."""
    (task_id,) = await ask(task_server, store, 1)
    await store.intake.register(task_id, Route("shelf", {"place": "other"}, "another key"), 900)
    await store.checks.postpone(await store.queries.find(task_id), 0)
    task_server.complete(task_id, {"approved": True})
    task_server.fault(faults.changed(idempotency_key=None), times=1000)
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "parked", 2)


@pytest.mark.edges
async def test_swapped_replies_answer_no_other_question(task_server: FakeHumans, store: Store) -> None:
    """A proxy swaps single reads and lists, and every wait still gets its own answer."""
    asked = await ask(task_server, store, 4)
    for place, task_id in enumerate(asked):
        task_server.complete(task_id, {"approved": True, "note": str(place)})
    task_server.fault(faults.swapped(0.1), times=6)
    settings = task_server.settings()
    async with (
        TaskClient(settings=settings, patience=0, transport=task_server.transport()) as client,
        Sweeper(store, client, {}, on_answer=lambda: None).running(),
    ):
        await until(store, "answered", 4)
    for place, task_id in enumerate(asked):
        (wait,) = await store.queries.find(task_id)
        assert wait.outcome is not None
        assert (wait.outcome.response or {})["note"] == str(place)


async def test_wait_long_past_its_deadline_is_parked(task_server: FakeHumans, reader: TaskClient, store: Store) -> None:
    """A wait whose task is still open long after its deadline is parked with the reason; others stay open."""
    (waiting,) = await ask(task_server, store, 1)
    async with task_server.client() as client:
        task = await client.create(HumanTask(task="swept?", response_schema=Decision))
    await store.intake.register(task.task_id, Route("shelf", {}, task.idempotency_key or ""), 0)
    await store.checks.postpone(await store.queries.find(task.task_id), 0)
    async with Sweeper(store, reader, {}, on_answer=lambda: None, lapsed_before=lambda: time.time() + 60).running():
        await until(store, "parked", 1)
    (lapsed,) = await store.queries.find(task.task_id)
    assert (lapsed.state, "deadline is long past" in (lapsed.last_error or "")) == ("parked", True)
    assert [wait.state for wait in await store.queries.find(waiting)] == ["open"]


async def test_wait_on_an_impossible_task_id_is_parked(
    task_server: FakeHumans,
    server_faults: ServerFaults,
    reader: TaskClient,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wait stored by an earlier release would fail at every check with a traceback and delay others."""
    await store.intake.register("..%2fstatus", Route("shelf", {"place": "a"}, "k"), 900)
    await store.checks.postpone(await store.queries.find("..%2fstatus"), 0)
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "parked", 1, 5)
    (wait,) = await store.queries.find("..%2fstatus")
    assert "is not a task id" in str(wait.last_error)
    assert not server_faults.knocks
    assert "Traceback" not in caplog.text


async def test_sweep_waits_for_retry_after(
    task_server: FakeHumans, server_faults: ServerFaults, reader: TaskClient, store: Store
) -> None:
    """A server that requests a pause of three seconds gets no check during it."""
    for task_id in await ask(task_server, store, 20):
        task_server.complete(task_id, {"approved": True})
    server_faults.shut = Response("{}", 429, {"Retry-After": "3"})
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        async with asyncio.timeout(60):
            while not server_faults.knocks:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        server_faults.shut, asked = None, len(server_faults.knocks)
        await until(store, "answered", 20 - asked)
    assert server_faults.knocks[asked] - server_faults.knocks[0] >= 3.0


async def test_slow_reply_does_not_delay_other_checks(
    task_server: FakeHumans, server_faults: ServerFaults, reader: TaskClient, store: Store
) -> None:
    """Forty tasks are read while the reply for another one never ends."""
    slow, *others = await ask(task_server, store, 41)
    server_faults.slow = slow
    for task_id in others:
        task_server.complete(task_id, {"approved": True})
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "answered", 40)


async def test_hanging_engine_does_not_delay_another_engines_answers(
    task_server: FakeHumans, reader: TaskClient, store: Store
) -> None:
    """Although one engine's orphan check hangs, answers for another engine are found."""

    class Hangs(CollectingEngine):
        async def orphaned(self, route: Route) -> str | None:
            await asyncio.Event().wait()
            raise AssertionError(route)

    await ask(task_server, store, 20, engine="hangs")
    for task_id in await ask(task_server, store, 40):
        task_server.complete(task_id, {"approved": True})
    async with Sweeper(store, reader, {"hangs": Hangs("hangs")}, on_answer=lambda: None).running():
        await until(store, "answered", 40)


class Slow(httpx.AsyncHTTPTransport):
    """Send callbacks one after another, eight per second, as the real server does."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.12)
        return await super().handle_async_request(request)


@pytest.mark.edges
async def test_sweep_finds_three_hundred_answers_before_their_callbacks(tmp_path: Path) -> None:
    """Callbacks alone would take forty seconds; the sweep needs a few dozen requests and then stops."""
    port, shelf = free_port(), CollectingEngine()
    url = f"http://127.0.0.1:{port}"
    humans = FakeHumans(clock=SystemClock(), callbacks="server", callback_transport=Slow())
    with humans.serving() as address:
        settings = humans.settings(relay_url=url, relay_secret=secrets.token_urlsafe(32))
        tasks = await _asked_yesterday(humans, settings.signer().issue, url, tmp_path, 300)
        async with running_relay(
            [shelf], FakeServer(humans, address, tmp_path), tmp_path, settings=settings, port=port
        ):
            began = time.monotonic()
            humans.calls.clear()
            for task_id in tasks:
                humans.complete(task_id, {"approved": True}, by="anna@example.com")
            outcomes = await shelf.until(300)
            took = time.monotonic() - began
            asked = len(humans.calls)
            await asyncio.sleep(2.5)
    assert took < 25  # generous for a slow machine; benchmarks/sweep.py measures the ten seconds
    assert {outcome.task_id for outcome in outcomes} == set(tasks)
    assert {outcome.completed_by_email for outcome in outcomes} == {"anna@example.com"}
    assert asked <= 30
    assert len(humans.calls) - asked <= 15
    assert shelf.calls == 300


async def _asked_yesterday(
    humans: FakeHumans, issue: Callable[[Route], str], relay: str, folder: Path, count: int
) -> list[str]:
    """Register waits that are a day old, mostly without a check for minutes."""
    store = Store(f"sqlite:///{folder / 'relay.db'}", clock=lambda: time.time() - 24 * 3600)
    await store.start()
    gate = asyncio.Semaphore(16)

    async def one(client: TaskClient, number: int) -> str:
        route = Route("shelf", {"place": str(number)}, f"question-{number}")
        task = HumanTask(task=f"{number}?", response_schema=Decision, idempotency_key=route.idempotency_key)
        async with gate:
            body = {**task.body(), "callback_url": f"{relay}/callbacks/{issue(route)}"}
            task_id = (await client.create(body)).task_id
        await store.intake.register(task_id, route, MONTH_SECONDS)
        await store.checks.postpone(await store.queries.find(task_id), 24 * 3600 + MAX_CHECK_SECONDS - 30)
        return task_id

    async with humans.client() as client:
        found = await asyncio.gather(*(one(client, number) for number in range(count)))
    await store.stop()
    return found
