"""The SQLite file is deleted, replaced or moved while the relay runs, or the disk is full.

Every acknowledged answer is in the file that a restarted relay opens, and the relay acknowledges nothing else.
"""

import asyncio
import json
import os
import resource
import secrets
import shutil
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
from devservers import free_port
from sqlalchemy import text

from awaithumans_core import Outcome, Route, Settings
from awaithumans_core.runs import StartedRuns
from awaithumans_core.signing import SIGNATURE_HEADER, derive_webhook_key, sign
from awaithumans_relay import create_app
from awaithumans_relay.store import Store
from awaithumans_relay.store.database.connections import REOPEN_SECONDS
from awaithumans_relay.store.errors import StoreUnavailableError
from awaithumans_relay.store.readiness import PROBE_EVERY_SECONDS, Readiness
from tests.support.postgres import PostgresServer
from tests.support.relay import uvicorn_process

pytestmark = pytest.mark.edges

PAYLOAD_KEY = secrets.token_urlsafe(32)


def route(number: int) -> Route:
    return Route("away", {"place": str(number)}, f"question-{number}")


async def answer(store: Store, number: int) -> None:
    outcome = Outcome(
        task_id=f"task-{number}",
        status="completed",
        response={"approved": True},
        idempotency_key=f"question-{number}",
    )
    await store.intake.answer(outcome, found_by="callback", route=route(number))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relay").mkdir()
    return tmp_path / "relay"


@pytest.fixture
def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'waits.db'}"


@pytest.fixture
async def store(url: str) -> AsyncGenerator[Store]:
    opened = Store(url)
    await opened.start()
    await opened.queries.engines()  # this also opens a reading connection
    yield opened
    await opened.stop()


def delete_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def delete(name: str) -> Callable[[Path], None]:
    def one(folder: Path) -> None:
        (folder / name).unlink()

    one.__name__ = f"delete {name}"
    return one


def replace_by_an_empty_file(folder: Path) -> None:
    (folder / "new").touch()
    (folder / "new").rename(folder / "waits.db")


def restore_a_backup(folder: Path) -> None:
    with sqlite3.connect(folder / "waits.db") as db:
        db.execute("VACUUM INTO ?", (str(folder / "backup"),))
    db.close()
    with sqlite3.connect(folder / "backup") as db:
        db.execute("DELETE FROM waits WHERE task_id = 'task-1'")
        db.execute("UPDATE waits SET state = 'open', outcome = NULL")
    db.close()
    for name in ("waits.db-wal", "waits.db-shm"):
        (folder / name).unlink()
    (folder / "backup").rename(folder / "waits.db")


def replace_the_folder(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()


FAULTS = [
    delete_all,
    delete("waits.db"),
    delete("waits.db-wal"),
    delete("waits.db-shm"),
    replace_by_an_empty_file,
    restore_a_backup,
    replace_the_folder,
]
every_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


async def stored_after_restart(url: str) -> dict[str, str]:
    """Return the waits that a new process finds, with their states."""
    store = Store(url)
    await store.start()
    found = {wait.task_id: str(wait.state) for wait in await store.queries.listed()}
    await store.stop()
    return found


@every_fault
async def test_write_to_a_lost_file_is_refused_and_the_next_one_saved(
    store: Store, url: str, folder: Path, fault: Callable[[Path], None]
) -> None:
    """The first write is refused; the next is stored in the file at the path with all earlier rows."""
    await answer(store, 0)
    await answer(store, 1)
    fault(folder)
    with pytest.raises(StoreUnavailableError, match=r"waits\.db.* was (deleted|replaced) while the relay runs"):
        await answer(store, 2)
    await answer(store, 3)
    assert len(await store.checks.unanswered(["task-0", "task-1", "task-3"])) == 0
    (leased, *_) = await store.leases.acquire("away", "relay", limit=9, seconds=15)
    assert await store.leases.delivered(leased, "relay")
    await store.stop()
    found = await stored_after_restart(url)
    assert found.keys() >= {"task-0", "task-1", "task-3"}
    assert sorted(state for name, state in found.items() if name != "task-2")[:2] == ["answered", "answered"]


@every_fault
async def test_rows_are_saved_when_the_relay_stops_after_losing_its_file(
    store: Store, url: str, folder: Path, fault: Callable[[Path], None]
) -> None:
    """The relay stops before another write, and every acknowledged row is in the file at the path."""
    await answer(store, 0)
    await answer(store, 1)
    fault(folder)
    await store.stop()
    assert await stored_after_restart(url) == {"task-0": "answered", "task-1": "answered"}


@every_fault
async def test_two_relays_save_a_lost_file_together(
    store: Store, url: str, folder: Path, fault: Callable[[Path], None]
) -> None:
    """Each relay carries over its rows, and a wait delivered meanwhile is not delivered again."""
    other = Store(url)
    await other.start()
    for number in range(4):
        await answer((store, other)[number % 2], number)
    fault(folder)
    for each, number in ((store, 4), (other, 5)):
        with pytest.raises(StoreUnavailableError):
            await answer(each, number)
    await answer(store, 6)
    for wait in await store.leases.acquire("away", "relay", limit=9, seconds=15):
        assert await store.leases.delivered(wait, "relay")
    await answer(other, 7)
    assert await other.queries.counts() == await store.queries.counts()
    assert await other.queries.counts() == {"delivered": 5, "answered": 1}
    await other.stop()
    await store.stop()
    assert (await stored_after_restart(url)).keys() == {f"task-{number}" for number in (0, 1, 2, 3, 6, 7)}


async def test_missing_folder_refuses_writes_until_it_exists(store: Store, url: str, folder: Path) -> None:
    """Writes are refused until the folder exists again, and then every row is there."""
    await answer(store, 0)
    shutil.rmtree(folder)
    for number in range(1, 3):
        with pytest.raises(StoreUnavailableError):
            await answer(store, number)
    folder.mkdir()
    await asyncio.sleep(REOPEN_SECONDS)
    await answer(store, 3)
    await store.stop()
    assert (await stored_after_restart(url)).keys() == {"task-0", "task-3"}


async def test_folder_renamed_and_back_is_used_unchanged(store: Store, url: str, folder: Path) -> None:
    """Writes are refused meanwhile, and nothing is copied."""
    await answer(store, 0)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StoreUnavailableError):
        await answer(store, 1)
    folder.with_name("elsewhere").rename(folder)
    await answer(store, 2)
    await store.stop()
    assert (await stored_after_restart(url)).keys() == {"task-0", "task-2"}


async def test_changed_symbolic_link_is_followed(tmp_path: Path) -> None:
    """The rows behind the link's old target are carried over to the new one."""
    link = tmp_path / "waits.db"
    link.symlink_to(tmp_path / "first.db")
    store = Store(f"sqlite:///{link}")
    await store.start()
    await answer(store, 0)
    link.unlink()
    link.symlink_to(tmp_path / "second.db")
    with pytest.raises(StoreUnavailableError):
        await answer(store, 1)
    await answer(store, 2)
    await store.stop()
    assert (await stored_after_restart(f"sqlite:///{tmp_path / 'second.db'}")).keys() == {"task-0", "task-2"}


async def test_restored_backup_does_not_reset_started_runs(store: Store, url: str, folder: Path) -> None:
    """A wait parked because its runs may have acted is answered in the backup, and must not run again."""
    await answer(store, 0)
    with sqlite3.connect(folder / "waits.db") as db:
        db.execute("VACUUM INTO ?", (str(folder / "backup"),))
    db.close()
    (wait,) = await store.leases.acquire("away", "relay", limit=1, seconds=15)
    assert await store.leases.start_run(wait, "relay", StartedRuns("position", 2))
    assert await store.leases.park(wait, "relay", reason="it may have acted")
    (folder / "backup").rename(folder / "waits.db")
    with pytest.raises(StoreUnavailableError):
        await answer(store, 1)
    await answer(store, 2)
    (wait,) = await store.queries.find("task-0")
    assert (wait.state, wait.runs) == ("parked", StartedRuns("position", 2))


@pytest.mark.parametrize("since", ["registered again", "redriven"])
async def test_second_relay_does_not_undo_a_later_redelivery(store: Store, url: str, folder: Path, since: str) -> None:
    """After the first relay carried the rows a wait is due again, and the second relay keeps that."""
    other = Store(url)
    await other.start()
    await store.intake.register("task-0", route(0), 900)
    await answer(store, 0)
    (wait,) = await store.leases.acquire("away", "relay", limit=1, seconds=15)
    if since == "redriven":
        await store.leases.start_run(wait, "relay", StartedRuns("position", 2))
        await store.leases.park(wait, "relay", reason="it may have acted")
    else:
        await store.leases.delivered(wait, "relay")
    delete_all(folder)
    for each in (store, other):
        with pytest.raises(StoreUnavailableError):
            await answer(each, 1)
    await answer(store, 2)
    await (
        store.upkeep.redrive(task_id="task-0")
        if since == "redriven"
        else store.intake.register("task-0", route(0), 900)
    )
    await answer(other, 3)
    (wait,) = await other.queries.find("task-0")
    assert wait.state == "answered"
    await other.stop()


def log_files(database: Path) -> dict[str, int]:
    """Return the inodes of the write-ahead log and its index."""
    return {kind: database.with_name(database.name + kind).stat().st_ino for kind in ("-wal", "-shm")}


async def test_log_of_the_old_database_is_kept_when_a_link_changes(tmp_path: Path) -> None:
    """Another process keeps using the database behind the old target and its log."""
    database, link = tmp_path / "first.db", tmp_path / "waits.db"
    link.symlink_to(database)
    store = Store(f"sqlite:///{link}")
    await store.start()
    await answer(store, 0)
    other = sqlite3.connect(database)
    other.execute("SELECT count(*) FROM waits").fetchall()
    before = log_files(database)
    link.unlink()
    link.symlink_to(tmp_path / "second.db")
    with pytest.raises(StoreUnavailableError):
        await answer(store, 1)
    await answer(store, 2)
    assert log_files(database) == before
    other.close()
    await store.stop()


@pytest.mark.parametrize("moved", ["the folder", "the database file"])
async def test_log_is_kept_when_the_database_returns_during_the_change(store: Store, folder: Path, moved: str) -> None:
    """A reader delays the checkpoint, and the database is at its path again before it ends."""
    await answer(store, 0)
    reader = sqlite3.connect(folder / "waits.db", isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM waits").fetchall()
    await answer(store, 1)
    before = log_files(folder / "waits.db")
    here = folder if moved == "the folder" else folder / "waits.db"
    elsewhere = here.rename(folder.with_name("elsewhere"))
    with pytest.raises(StoreUnavailableError):
        await answer(store, 2)
    change = asyncio.create_task(answer(store, 3))
    await asyncio.sleep(0.3)
    elsewhere.rename(here)
    reader.execute("COMMIT")
    await asyncio.gather(change, return_exceptions=True)
    assert log_files(folder / "waits.db") == before
    reader.close()
    await asyncio.sleep(REOPEN_SECONDS)
    await answer(store, 4)
    assert {"task-0", "task-1", "task-4"} <= {wait.task_id for wait in await store.queries.listed()}


SECOND_RELAY = """
import asyncio, sys
from awaithumans_core import Outcome, Route
from awaithumans_relay.store import Store

async def main():
    store = Store(sys.argv[1])
    await store.start()
    outcome = Outcome(task_id="task-9", status="completed", response={}, idempotency_key="question-9")
    await store.intake.answer(outcome, found_by="callback", route=Route("away", {"place": "9"}, "question-9"))
    print("stored", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


async def test_relay_started_after_the_log_was_deleted_loses_no_wait(store: Store, url: str) -> None:
    """It begins a new log beside the one that the first relay has open, and the waits of both are kept."""
    await answer(store, 0)
    for kind in ("-wal", "-shm"):
        os.unlink(url.removeprefix("sqlite:///") + kind)
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SECOND_RELAY, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"stored\n"
    with pytest.raises(StoreUnavailableError, match="was replaced"):
        await answer(store, 1)
    await answer(store, 2)
    other.kill()
    await other.wait()
    await store.stop()
    assert (await stored_after_restart(url)).keys() == {"task-0", "task-2", "task-9"}
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


async def test_foreign_file_at_the_path_is_not_written_to(store: Store, folder: Path, url: str) -> None:
    """Writes are refused with the reason, and continue once the file is removed."""
    await answer(store, 0)
    delete_all(folder)
    (folder / "waits.db").write_text("something else" * 100)
    with pytest.raises(StoreUnavailableError):
        await answer(store, 1)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        await answer(store, 2)
    (folder / "waits.db").unlink()
    await asyncio.sleep(REOPEN_SECONDS)
    await answer(store, 3)
    await store.stop()
    assert (await stored_after_restart(url)).keys() == {"task-0", "task-3"}


class Away:
    """An engine that is down, so that acknowledged answers have to be kept."""

    name = "away"

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        raise ConnectionError("down")


@pytest.fixture
def settings() -> Settings:
    return Settings.load(
        url="http://127.0.0.1:9",
        admin_api_token="token",
        relay_secret=secrets.token_urlsafe(32),
        payload_key=PAYLOAD_KEY,
    )


async def call_back(http: httpx.AsyncClient, settings: Settings, number: int) -> httpx.Response:
    body = {"task_id": f"task-{number}", "idempotency_key": f"question-{number}", "status": "completed"}
    raw = json.dumps(body | {"response": {"approved": True}}).encode()
    signature = {SIGNATURE_HEADER: sign(raw, derive_webhook_key(PAYLOAD_KEY))}
    return await http.post(f"/callbacks/{settings.signer().issue(route(number))}", content=raw, headers=signature)


async def test_relay_reports_a_lost_file_and_recovers(settings: Settings, url: str, folder: Path) -> None:
    """Callback and /readyz are 503 with the reason, and recover within seconds without a restart."""
    app = create_app([Away()], settings=settings, database=url)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay")
    async with app.router.lifespan_context(app), client as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await call_back(http, settings, 0)).status_code == 200
        shutil.rmtree(folder)
        replies = await call_back(http, settings, 1), await http.get("/readyz")
        for reply in replies:
            assert (reply.status_code, reply.json()["error"]) == (503, "STORE_UNAVAILABLE")
            assert "waits.db was deleted while the relay runs" in reply.json()["message"]
        folder.mkdir()
        async with asyncio.timeout(20):
            while (await call_back(http, settings, 1)).status_code != 200:
                await asyncio.sleep(0.1)
        assert (await http.get("/readyz")).json()["waits"] == {"answered": 2}
    assert await stored_after_restart(url) == {"task-0": "answered", "task-1": "answered"}


APP = """
from awaithumans_relay import create_app
app = create_app([], database="sqlite:///waits.db")
"""


async def test_full_disk_makes_the_relay_not_ready(settings: Settings, tmp_path: Path) -> None:
    """/readyz is 503 without a callback, the callback is 503, and both recover."""
    (tmp_path / "relay_app.py").write_text(APP)
    port = free_port()
    process = uvicorn_process(tmp_path, "relay_app:app", port, settings, "--log-level", "warning")
    process.start()

    def file_size_limit(limit: int) -> None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    try:
        await process.answers(f"http://127.0.0.1:{port}/healthz")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            file_size_limit(os.path.getsize(tmp_path / "waits.db-wal"))
            assert (await http.get("/readyz")).status_code == 503
            assert (await call_back(http, settings, 0)).status_code == 503
            assert (await http.get("/readyz")).status_code == 503
            file_size_limit(resource.RLIM_INFINITY)
            assert (await call_back(http, settings, 0)).status_code == 200
            assert (await http.get("/readyz")).status_code == 200
            file_size_limit(os.path.getsize(tmp_path / "waits.db-wal"))
            assert (await call_back(http, settings, 1)).status_code == 503
            assert (await http.get("/readyz")).status_code == 503
    finally:
        process.stop()


POSTGRES_FAULTS = {
    "read-only after a failover": "ALTER DATABASE {name} SET default_transaction_read_only = on",
    "table dropped": "DROP TABLE waits",
    "database dropped": "DROP DATABASE {name} WITH (FORCE)",
}


@pytest.mark.parametrize("fault", POSTGRES_FAULTS.values(), ids=POSTGRES_FAULTS.keys())
async def test_read_only_postgres_makes_the_relay_not_ready(
    settings: Settings, postgres: PostgresServer, fault: str
) -> None:
    """Callback and /readyz are 503, whether or not a callback came first."""
    url = postgres.database()
    app = create_app([Away()], settings=settings, database=url)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay")
    async with app.router.lifespan_context(app), client as http:
        name = url.partition("@/")[2].partition("?")[0]
        postgres.execute(fault.format(name=name), database=name if "TABLE" in fault else "postgres")
        postgres.end_sessions(name)
        assert (await http.get("/readyz")).status_code == 503
        assert (await call_back(http, settings, 0)).status_code == 503
        assert (await http.get("/readyz")).status_code == 503


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
async def test_readiness_probe_writes_once_every_five_seconds(
    request: pytest.FixtureRequest, url: str, where: str
) -> None:
    """However often it is requested, the probe writes one row and leaves nothing behind."""
    steady = [100.0]
    if where == "postgres":
        url = request.getfixturevalue("postgres").database()
    store = Store(url, steady=lambda: steady[0])
    await store.start()

    async def written() -> int:
        counted = "SELECT count(*) FROM probes"
        return int(await store.database.read(lambda db: db.execute(text(counted)).scalar_one()))

    def count_inserts(db: object) -> None:
        for statement in _COUNTING[where]:
            db.exec_driver_sql(statement)  # type: ignore[attr-defined]

    await store.database.write(count_inserts)
    for _ in range(3):
        await asyncio.gather(*(store.readiness.check() for _ in range(20)))
    assert await written() == 1
    steady[0] += PROBE_EVERY_SECONDS - 0.1
    await store.readiness.check()
    assert await written() == 1
    steady[0] += 0.2
    await asyncio.gather(*(store.readiness.check() for _ in range(20)))
    assert await written() == 2
    assert await store.queries.counts() == {}
    await store.stop()


_COUNTING = {
    "sqlite": [
        "CREATE TABLE probes (task_id TEXT)",
        "CREATE TRIGGER counting AFTER INSERT ON waits BEGIN INSERT INTO probes VALUES (new.task_id); END",
    ],
    "postgres": [
        "CREATE TABLE probes (task_id TEXT)",
        "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO probes VALUES (new.task_id); RETURN new; END'",
        "CREATE TRIGGER counting AFTER INSERT ON waits FOR EACH ROW EXECUTE FUNCTION counted()",
    ],
}


async def test_failed_write_makes_the_relay_not_ready_until_one_succeeds(store: Store) -> None:
    """A failure counts at once, even if the last probe succeeded, until a row is written."""
    await store.readiness.check()
    await store.database.write(lambda db: db.execute(text("ALTER TABLE waits RENAME TO elsewhere")))
    with pytest.raises(Exception, match="no such table"):
        await answer(store, 0)
    with pytest.raises(Exception, match="no such table"):
        await store.readiness.check()
    await store.database.write(lambda db: db.execute(text("ALTER TABLE elsewhere RENAME TO waits")))
    with pytest.raises(Exception, match="no such table"):
        await store.readiness.check()
    await answer(store, 0)
    await store.readiness.check()


async def test_hanging_probe_is_shared(store: Store) -> None:
    """A second request does not start a second write behind the first."""
    from concurrent.futures import Future

    begun: list[Future[None]] = []

    def probe() -> "Future[None]":
        begun.append(Future())
        return begun[-1]

    readiness = Readiness(probe, store.steady)
    checks = [asyncio.create_task(readiness.check()) for _ in range(5)]
    await asyncio.sleep(0.1)
    checks[0].cancel()
    begun[0].set_result(None)
    assert await asyncio.gather(*checks[1:]) == [None] * 4
    assert len(begun) == 1
