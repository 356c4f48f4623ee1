"""A relay that is not running acknowledges nothing, whatever the reason."""

import asyncio
import json
import logging
import os
import secrets
import signal
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from devservers import free_port
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from awaithumans_core import Outcome, Route, Settings
from awaithumans_core.signing import SIGNATURE_HEADER, derive_webhook_key, sign
from awaithumans_relay import create_app, create_router
from awaithumans_relay.store import Store
from awaithumans_relay.store.table.schema import waits
from tests.support.engines import CollectingEngine
from tests.support.relay import uvicorn_process

OPERATOR = secrets.token_urlsafe(32)
PAYLOAD_KEY = secrets.token_urlsafe(32)


@pytest.fixture
def settings() -> Settings:
    return Settings.load(
        url="http://127.0.0.1:9",
        admin_api_token="token",
        relay_secret=secrets.token_urlsafe(32),
        payload_key=PAYLOAD_KEY,
        relay_operator_token=OPERATOR,
    )


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'waits.db'}"


def route(number: int = 0) -> Route:
    return Route("shelf", {"place": str(number)}, f"question-{number}")


def asking(app: ASGIApp, prefix: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://host{prefix}/", timeout=10)


async def call_back(http: httpx.AsyncClient, settings: Settings, number: int = 0) -> httpx.Response:
    body = {"task_id": f"task-{number}", "idempotency_key": f"question-{number}", "status": "completed"}
    raw = json.dumps(body | {"response": {"approved": True}}).encode()
    signature = {SIGNATURE_HEADER: sign(raw, derive_webhook_key(PAYLOAD_KEY))}
    return await http.post(f"callbacks/{settings.signer().issue(route(number))}", content=raw, headers=signature)


async def register(http: httpx.AsyncClient, settings: Settings, number: int = 0) -> httpx.Response:
    bearer = {"Authorization": f"Bearer {settings.signer().prove(route(number), f'task-{number}')}"}
    return await http.put(f"waits/task-{number}", json={"timeout_seconds": 900}, headers=bearer)


async def replies(http: httpx.AsyncClient, settings: Settings) -> dict[str, httpx.Response]:
    """Return the reply of every endpoint that needs a running relay."""
    operator = {"Authorization": f"Bearer {OPERATOR}"}
    return {
        "callback": await call_back(http, settings),
        "registration": await register(http, settings),
        "readyz": await http.get("readyz"),
        "list": await http.get("waits", headers=operator),
        "redrive": await http.post("waits/redrive", headers=operator),
        "redrive one": await http.post("waits/task-0/redrive", headers=operator),
        "page": await http.get("operate", headers=operator),
        "form": await http.post("operate", headers=operator, data={"all": "1"}),
    }


def reasons(replied: dict[str, httpx.Response]) -> set[tuple[int, str, str]]:
    return {(each.status_code, each.json()["error"], each.json()["message"]) for each in replied.values()}


NEW = (503, "RELAY_NOT_RUNNING", "this relay has not been started: its lifespan has not run")
STARTING = (503, "RELAY_NOT_RUNNING", "this relay is starting")
FAILED = (503, "RELAY_NOT_RUNNING", "this relay could not start")
STOPPED = (503, "RELAY_NOT_RUNNING", "this relay has stopped")


def mounted(settings: Settings, database: str) -> ASGIApp:
    app = FastAPI()
    app.mount("/relay", create_app([CollectingEngine()], settings=settings, database=database))
    return app


def mounted_in_starlette(settings: Settings, database: str) -> ASGIApp:
    return Starlette(
        routes=[Mount("/relay", app=create_app([CollectingEngine()], settings=settings, database=database))]
    )


def router_of_a_mounted_app(settings: Settings, database: str) -> ASGIApp:
    inner, app = FastAPI(redirect_slashes=False), FastAPI()
    inner.include_router(create_router([CollectingEngine()], settings=settings, database=database))
    app.mount("/relay", inner)
    return app


def router_included_after_the_start(settings: Settings, database: str) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.include_router(create_router([CollectingEngine()], settings=settings, database=database), prefix="/relay")
        yield

    return FastAPI(redirect_slashes=False, lifespan=lifespan)


@pytest.mark.parametrize("used", [False, True], ids=["new database", "used database"])
@pytest.mark.parametrize(
    "build", [mounted, mounted_in_starlette, router_of_a_mounted_app, router_included_after_the_start]
)
async def test_relay_without_its_lifespan_refuses_every_request(
    build: Callable[[Settings, str], FastAPI],
    used: bool,  # noqa: FBT001 - a test parameter
    settings: Settings,
    database: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every endpoint replies 503 with the reason, nothing is stored, and the remedy is logged once."""
    store = Store(database)
    if used:
        await store.start()
    app = build(settings, database)
    async with app.router.lifespan_context(app), asking(app, "/relay") as http, asyncio.timeout(20):
        assert reasons(replied := await replies(http, settings)) == {NEW}
        assert {each.json()["started"] for each in replied.values()} == {False}  # callers need not try again
        assert (await http.get("healthz")).status_code == 200
        assert "awaithumans_relay_store_up 0.0" in (await http.get("metrics")).text
        assert (await http.get("waits")).status_code == 401
    logged = [record.getMessage() for record in caplog.records if record.name == "awaithumans.relay"]
    assert len(logged) == 1
    assert "async with relay_app.router.lifespan_context(relay_app):" in logged[0]
    if used:
        assert await store.queries.counts() == {}
    else:
        assert not Path(str(store.database.url.database)).exists()
    await store.stop()


async def test_mounted_relay_run_by_the_outer_lifespan_delivers(settings: Settings, database: str) -> None:
    """The setup that the log line and the README recommend works."""
    shelf = CollectingEngine()
    relay_app = create_app([shelf], settings=settings, database=database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with relay_app.router.lifespan_context(relay_app):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/relay", relay_app)
    async with app.router.lifespan_context(app), asking(app, "/relay") as http:
        assert (await call_back(http, settings)).status_code == 200
        await shelf.until(1)
        assert (await http.get("readyz")).status_code == 200


async def test_router_made_in_the_applications_lifespan_delivers(settings: Settings, database: str) -> None:
    """A router that is created in the lifespan of its application works."""
    shelf = CollectingEngine()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        relay_router = create_router([shelf], settings=settings, database=database)
        app.include_router(relay_router, prefix="/relay")
        async with relay_router.lifespan_context(app):
            yield

    app = FastAPI(redirect_slashes=False, lifespan=lifespan)
    async with app.router.lifespan_context(app), asking(app, "/relay") as http:
        assert (await call_back(http, settings)).status_code == 200
        await shelf.until(1)


async def test_stopped_relay_refuses_until_it_is_started_again(settings: Settings, database: str) -> None:
    """An application that is started twice delivers each time and refuses in between."""
    owners: set[str] = set()
    observer = Store(database)

    class Watching(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            leased = select(waits.c.lease_owner).where(waits.c.task_id == outcome.task_id)
            owners.add(str(await observer.database.read(lambda db: db.execute(leased).scalar())))
            await super().deliver(route, outcome)

    shelf = Watching()
    app = create_app([shelf], settings=settings, database=database)
    async with asking(app) as http:
        for number in range(2):
            async with app.router.lifespan_context(app):
                assert (await call_back(http, settings, number)).status_code == 200
                await shelf.until(number + 1)
                assert (await http.get("readyz")).status_code == 200
            assert reasons(await replies(http, settings)) == {STOPPED}
    assert len(owners) == 2, "processes that were forked after the application was made must not share leases"
    await observer.stop()


async def test_request_during_startup_is_refused_at_once(settings: Settings, database: str, tmp_path: Path) -> None:
    """While the locked database delays the start, a request is refused instead of waiting."""
    app = create_app([CollectingEngine()], settings=settings, database=database)
    holder = sqlite3.connect(tmp_path / "waits.db", isolation_level=None)
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("BEGIN IMMEDIATE")
    stop = asyncio.Event()

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await stop.wait()

    running = asyncio.create_task(run())
    await asyncio.sleep(0.2)
    async with asking(app) as http:
        assert reasons(await replies(http, settings)) == {STARTING}
        holder.rollback()
        holder.close()
        async with asyncio.timeout(20):
            while (await http.get("readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        assert (await call_back(http, settings)).status_code == 200
    stop.set()
    await running


async def test_relay_that_failed_to_start_refuses_and_can_start_later(settings: Settings, tmp_path: Path) -> None:
    """Without the folder of its database the relay refuses; once it exists, the same application starts."""
    shelf = CollectingEngine()
    app = create_app([shelf], settings=settings, database=f"sqlite:///{tmp_path / 'later' / 'waits.db'}")
    with pytest.raises(OperationalError):
        async with app.router.lifespan_context(app):
            raise AssertionError("it has started")
    async with asking(app) as http:
        assert reasons(await replies(http, settings)) == {FAILED}
        (tmp_path / "later").mkdir()
        async with app.router.lifespan_context(app):
            assert (await call_back(http, settings)).status_code == 200
            await shelf.until(1)


async def test_callbacks_during_shutdown_are_stored_or_refused(settings: Settings, database: str) -> None:
    """Every callback that got 2xx while the relay stopped is in the database."""
    app = create_app([], settings=settings, database=database)
    stored: set[str] = set()
    seen: set[int] = set()
    over = asyncio.Event()
    async with asking(app) as http:

        async def caller(first: int) -> None:
            number = first
            while not over.is_set():
                reply = await call_back(http, settings, number)
                seen.add(reply.status_code)
                if reply.status_code == 200:
                    stored.add(f"task-{number}")
                number += 8
                await asyncio.sleep(0.001)

        async with app.router.lifespan_context(app):
            callers = [asyncio.create_task(caller(first)) for first in range(8)]
            await asyncio.sleep(0.5)
        over.set()
        await asyncio.gather(*callers)
    assert seen == {200, 503}
    store = Store(database)
    assert {wait.task_id for wait in await store.queries.listed(limit=10_000)} == stored
    await store.stop()


async def test_router_included_twice_runs_once(settings: Settings, database: str) -> None:
    """One relay at two prefixes delivers every answer once, and stops."""
    shelf = CollectingEngine()
    router = create_router([shelf], settings=settings, database=database)
    app = FastAPI(redirect_slashes=False)
    app.include_router(router, prefix="/old")
    app.include_router(router, prefix="/new")
    async with asking(app, "/old") as old, asking(app, "/new") as new:
        async with app.router.lifespan_context(app):
            for number in range(10):
                assert (await call_back((old, new)[number % 2], settings, number)).status_code == 200
            await shelf.until(10)
            await asyncio.sleep(0.2)
            assert shelf.calls == 10
        assert reasons(await replies(new, settings)) == {STOPPED}


async def test_answer_from_another_event_loop_is_delivered_at_once(settings: Settings, database: str) -> None:
    """An answer received in another thread than the relay's does not wait for the next tick."""
    delivered, stop, started = threading.Event(), threading.Event(), threading.Event()

    class Ringing:
        name = "shelf"

        async def deliver(self, route: Route, outcome: Outcome) -> None:
            delivered.set()

    app = create_app([Ringing()], settings=settings, database=database)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert await asyncio.to_thread(started.wait, 20)
        await asyncio.sleep(0.5)  # the dispatcher now sleeps for several seconds
        async with asking(app) as http:
            assert (await call_back(http, settings)).status_code == 200
            assert (await http.get("readyz")).status_code == 200
        assert await asyncio.to_thread(delivered.wait, 3)
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


MOUNTED = """
from fastapi import FastAPI
from awaithumans_relay import create_app
app = FastAPI()
app.mount("/relay", create_app([], database="sqlite:///waits.db"))
"""


async def test_sigterm_ends_a_process_whose_relay_never_started(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are refused at once, and nothing keeps the process alive."""
    caplog.set_level(logging.CRITICAL)
    (tmp_path / "mounted.py").write_text(MOUNTED)
    port = free_port()
    process = uvicorn_process(tmp_path, "mounted:app", port, settings)
    process.start()
    try:
        await process.answers(f"http://127.0.0.1:{port}/relay/healthz")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/relay/", timeout=5) as http:
            assert (await register(http, settings)).status_code == 503
            assert (await call_back(http, settings)).status_code == 503
        os.kill(process.pid, signal.SIGTERM)
        async with asyncio.timeout(8):
            while process.alive:
                await asyncio.sleep(0.05)
        assert process.output().count("requests are refused (503)") == 1
    finally:
        process.stop()
