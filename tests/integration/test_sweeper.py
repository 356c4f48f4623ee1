"""What the sweep survives, and how it runs ahead of the callbacks: a real table, a server that can shut its door."""

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
from awaithumans_core.testing import FakeHumans, faults
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import Store
from awaithumans_relay.store.schedule import MOST_CHECK_SECONDS
from awaithumans_relay.sweep.sweeper import Sweeper
from tests.support.engines import CollectingEngine
from tests.support.relay import running_relay
from tests.support.servers import FakeServer
from tests.support.workflows import Decision

MONTH_SECONDS = 30 * 24 * 3600


class Door:
    """In front of the task server. Shut, it answers everybody with this reply; a `slow` task is never read."""

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
async def office() -> AsyncGenerator[FakeHumans]:
    async with FakeHumans(clock=SystemClock()) as humans:
        yield humans


@pytest.fixture
def door(office: FakeHumans) -> Door:
    return Door(office)


@pytest.fixture
async def reader(office: FakeHumans, door: Door) -> AsyncGenerator[TaskClient]:
    """The sweep's client."""
    settings = office.settings()
    async with TaskClient(settings=settings, patience=0, transport=httpx.ASGITransport(door)) as client:
        yield client


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    found = Store(f"sqlite:///{tmp_path / 'relay.db'}")
    await found.start()
    yield found
    await found.stop()


async def ask(office: FakeHumans, store: Store, count: int, engine: str = "shelf") -> list[str]:
    """So many open waits whose look is due; their task ids."""
    asked: list[str] = []
    async with office.client() as client:
        for _ in range(count):
            task = await client.create(HumanTask(task="swept?", response_schema=Decision))
            route = Route(engine, {"place": task.task_id}, task.idempotency_key or "")
            await store.register(task.task_id, route, 900)
            await store.postpone_checks(await store.find(task.task_id), 0)
            asked.append(task.task_id)
    return asked


async def until(store: Store, state: str, count: int, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while (await store.counts()).get(state, 0) < count:
            await asyncio.sleep(0.05)


@pytest.mark.edges
@pytest.mark.parametrize(
    ("status", "requests"),
    [(503, 12), (401, 12), (403, 40)],
    ids=["down", "token-revoked", "no-operator-any-more"],
)
async def test_an_outage_is_waited_out(
    office: FakeHumans,
    door: Door,
    reader: TaskClient,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    status: int,
    requests: int,
) -> None:
    """Forty looks are due while the server is away: a few requests, one error in the log; once back, all are found.

    A refusal of one task may be about that task alone, so each is read once before its check is put off.
    """
    caplog.set_level(logging.WARNING)
    for task_id in await ask(office, store, 40):
        office.complete(task_id, {"approved": True})
    door.shut = Response('{"detail": "no"}', status, media_type="application/json")
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await asyncio.sleep(1.5)
        assert len(door.knocks) <= requests
        door.shut = None
        await until(store, "answered", 40)
    levels = [record.levelname for record in caplog.records if "read again at growing" not in record.message]
    assert levels in (["WARNING", "ERROR", "WARNING"], ["ERROR", "WARNING"])
    assert ("AWAITHUMANS_ADMIN_API_TOKEN" in caplog.text) == (status != 503)


SHORTLY = Rule(seconds=1.0)
"""For tests in real time: a deletion is confirmed after a second."""


async def test_a_deleted_task_ends_its_wait(
    office: FakeHumans, door: Door, reader: TaskClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """After three readings its wait is answered with that end, and the dispatcher woken; the one beside it goes on."""
    caplog.set_level(logging.WARNING)
    deleted, kept = await ask(office, store, 2)
    office.delete(deleted)
    woken = asyncio.Event()
    began = time.monotonic()
    async with Sweeper(store, reader, {}, on_answer=woken.set, rule=SHORTLY).running():
        await asyncio.wait_for(woken.wait(), 60)
    assert time.monotonic() - began >= 1.0
    (wait,) = await store.find(deleted)
    assert (wait.state, wait.found_by, wait.outcome and wait.outcome.status) == ("answered", "missing", "not_found")
    assert [wait.state for wait in await store.find(kept)] == ["open"]
    assert [call for _, call in office.calls].count("get") >= 4
    (logged,) = caplog.messages
    assert logged == f"task {deleted} was deleted on the awaithumans server: its caller gets TaskNotFoundError"


async def test_another_database_ends_no_wait(
    office: FakeHumans, reader: TaskClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The doubt is reported once, and readiness is degraded; later the tasks are there again, and answers arrive."""
    caplog.set_level(logging.WARNING)
    asked = await ask(office, store, 3)
    observer = Observer()
    sweeper = Sweeper(store, reader, {}, on_answer=lambda: None, rule=SHORTLY, observer=observer)

    async def until_doubted(doubted: bool) -> None:  # noqa: FBT001
        async with asyncio.timeout(60):
            while (observer.health.missing_tasks is not None) is not doubted:
                await asyncio.sleep(0.05)

    async with sweeper.running():
        with office.another_database():
            await until_doubted(True)
            told = observer.health.report([])
            assert told["status"] == "degraded"
            assert told["missing_tasks"]["missing"] == 3
            assert "another database" in told["missing_tasks"]["reason"]
            assert await store.counts() == {"open": 3}
        for task_id in asked:
            await store.postpone_checks(await store.find(task_id), 0)
        await until_doubted(False)
        assert observer.health.report([])["status"] == "ready"
        office.complete(asked[0], {"approved": True})
        await store.postpone_checks(await store.find(asked[0]), 0)
        await until(store, "answered", 1)
    assert await store.counts() == {"open": 2, "answered": 1}
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
async def test_a_404_without_the_code_is_no_deletion(
    office: FakeHumans, door: Door, reader: TaskClient, store: Store, reply: Response
) -> None:
    """Only the API's own TASK_NOT_FOUND counts."""
    await ask(office, store, 1)
    door.shut = reply
    async with Sweeper(store, reader, {}, on_answer=lambda: None, rule=Rule(seconds=0.0)).running():
        async with asyncio.timeout(60):
            while not door.knocks:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
    assert not await store.any_missing()
    assert await store.counts() == {"open": 1}


async def test_hidden_key_is_that_of_the_wait(office: FakeHumans, reader: TaskClient, store: Store) -> None:
    """A server may hide keys from the relay's token: the record is known by the task's id, and no answer is parked."""
    (task_id,) = await ask(office, store, 1)
    office.complete(task_id, {"approved": True})
    office.fault(faults.changed(idempotency_key=None), times=1000)
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "answered", 1)
    (wait,) = await store.find(task_id)
    assert wait.outcome is not None
    assert wait.outcome.idempotency_key == wait.route.idempotency_key


async def test_hidden_key_of_two_questions_is_parked(office: FakeHumans, reader: TaskClient, store: Store) -> None:
    """Waits that name different questions for one task: nothing shows whose answer it is."""
    (task_id,) = await ask(office, store, 1)
    await store.register(task_id, Route("shelf", {"place": "other"}, "another key"), 900)
    await store.postpone_checks(await store.find(task_id), 0)
    office.complete(task_id, {"approved": True})
    office.fault(faults.changed(idempotency_key=None), times=1000)
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "parked", 2)


@pytest.mark.edges
async def test_swapped_replies_answer_no_other_question(office: FakeHumans, store: Store) -> None:
    """A proxy mixes up what the sweep reads, one by one and in the list: every wait gets its own answer."""
    asked = await ask(office, store, 4)
    for place, task_id in enumerate(asked):
        office.complete(task_id, {"approved": True, "note": str(place)})
    office.fault(faults.swapped(0.1), times=6)
    settings = office.settings()
    async with (
        TaskClient(settings=settings, patience=0, transport=office.transport()) as client,
        Sweeper(store, client, {}, on_answer=lambda: None).running(),
    ):
        await until(store, "answered", 4)
    for place, task_id in enumerate(asked):
        (wait,) = await store.find(task_id)
        assert wait.outcome is not None
        assert (wait.outcome.response or {})["note"] == str(place)


async def test_wait_long_past_its_deadline_is_parked(office: FakeHumans, reader: TaskClient, store: Store) -> None:
    """Its task is still open on the server: the wait is set aside with the reason. Others stay open."""
    (waiting,) = await ask(office, store, 1)
    async with office.client() as client:
        task = await client.create(HumanTask(task="swept?", response_schema=Decision))
    await store.register(task.task_id, Route("shelf", {}, task.idempotency_key or ""), 0)
    await store.postpone_checks(await store.find(task.task_id), 0)
    async with Sweeper(store, reader, {}, on_answer=lambda: None, lapsed_before=lambda: time.time() + 60).running():
        await until(store, "parked", 1)
    (lapsed,) = await store.find(task.task_id)
    assert (lapsed.state, "deadline is long past" in (lapsed.last_error or "")) == ("parked", True)
    assert [wait.state for wait in await store.find(waiting)] == ["open"]


async def test_wait_on_an_impossible_task_id_is_parked(
    office: FakeHumans, door: Door, reader: TaskClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier release stored it. It would fail at every check, with a traceback, and hold up the others."""
    await store.register("..%2fstatus", Route("shelf", {"place": "a"}, "k"), 900)
    await store.postpone_checks(await store.find("..%2fstatus"), 0)
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "parked", 1, 5)
    (wait,) = await store.find("..%2fstatus")
    assert "is not a task id" in str(wait.last_error)
    assert not door.knocks
    assert "Traceback" not in caplog.text


async def test_retry_after_is_kept(office: FakeHumans, door: Door, reader: TaskClient, store: Store) -> None:
    """A server that asks for three seconds of rest gets them, from every look."""
    for task_id in await ask(office, store, 20):
        office.complete(task_id, {"approved": True})
    door.shut = Response("{}", 429, {"Retry-After": "3"})
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        async with asyncio.timeout(60):
            while not door.knocks:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        door.shut, asked = None, len(door.knocks)
        await until(store, "answered", 20 - asked)
    assert door.knocks[asked] - door.knocks[0] >= 3.0


async def test_a_slow_reply_does_not_hold_the_others_up(
    office: FakeHumans, door: Door, reader: TaskClient, store: Store
) -> None:
    """One task cannot be read to its end; forty others are read meanwhile."""
    slow, *others = await ask(office, store, 41)
    door.slow = slow
    for task_id in others:
        office.complete(task_id, {"approved": True})
    async with Sweeper(store, reader, {}, on_answer=lambda: None).running():
        await until(store, "answered", 40)


async def test_an_engine_that_hangs_does_not_starve_another(
    office: FakeHumans, reader: TaskClient, store: Store
) -> None:
    """An engine never says whether anybody waits; answers for another engine are found all the same."""

    class Hangs(CollectingEngine):
        async def orphaned(self, route: Route) -> str | None:
            await asyncio.Event().wait()
            raise AssertionError(route)

    await ask(office, store, 20, engine="hangs")
    for task_id in await ask(office, store, 40):
        office.complete(task_id, {"approved": True})
    async with Sweeper(store, reader, {"hangs": Hangs("hangs")}, on_answer=lambda: None).running():
        await until(store, "answered", 40)


class Slow(httpx.AsyncHTTPTransport):
    """Callbacks leave one after another, eight a second, as those of the real server."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.12)
        return await super().handle_async_request(request)


@pytest.mark.edges
async def test_three_hundred_answers_at_once_do_not_wait_for_their_callbacks(tmp_path: Path) -> None:
    """Callbacks alone would take forty seconds. The sweep runs ahead of them, for a few dozen requests, and stops."""
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
    assert took < 25  # a slow machine takes its time; benchmarks/sweep.py has the ten seconds
    assert {outcome.task_id for outcome in outcomes} == set(tasks)
    assert {outcome.completed_by_email for outcome in outcomes} == {"anna@example.com"}
    assert asked <= 30
    assert len(humans.calls) - asked <= 15
    assert shelf.calls == 300


async def _asked_yesterday(
    humans: FakeHumans, issue: Callable[[Route], str], relay: str, folder: Path, count: int
) -> list[str]:
    """Open waits of a day: the schedule has no look at most of them for minutes."""
    store = Store(f"sqlite:///{folder / 'relay.db'}", clock=lambda: time.time() - 24 * 3600)
    await store.start()
    gate = asyncio.Semaphore(16)

    async def one(client: TaskClient, number: int) -> str:
        route = Route("shelf", {"place": str(number)}, f"question-{number}")
        task = HumanTask(task=f"{number}?", response_schema=Decision, idempotency_key=route.idempotency_key)
        async with gate:
            body = {**task.body(), "callback_url": f"{relay}/callbacks/{issue(route)}"}
            task_id = (await client.create(body)).task_id
        await store.register(task_id, route, MONTH_SECONDS)
        await store.postpone_checks(await store.find(task_id), 24 * 3600 + MOST_CHECK_SECONDS - 30)
        return task_id

    async with humans.client() as client:
        found = await asyncio.gather(*(one(client, number) for number in range(count)))
    await store.stop()
    return found
