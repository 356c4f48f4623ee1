"""One database, one writer: a thread that puts whatever waits to be written into one transaction.

Law: what has been acknowledged is stored. `write` returns after the commit. Callers that come at the same moment share
a commit, which costs as much for a hundred as for one; each has its own savepoint, so that one's error is its own. A
transaction that has begun goes on when its caller is cancelled.
"""

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from sqlite3 import OperationalError as SQLiteOperationalError
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from awaithumans_relay.schema import migrate

R = TypeVar("R")

logger = logging.getLogger("awaithumans.relay")

BATCH = 128
"""Writes in one transaction at most, so that the first of them does not wait for long."""
READERS = 2
BUSY_TIMEOUT_MS = 10_000
"""How long SQLite waits for another process's write before it gives up."""
TRIES = 3
"""Of a write that two relays have deadlocked on."""
DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+aiosqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
"""A database's plain name means the driver that comes with the package."""


@dataclass(slots=True, eq=False)
class _Write:
    operation: Callable[[Connection], Any]
    done: "Future[Any]"
    order: str
    tries: int = 0


class Database:
    """Connections to one database, for any thread and any event loop.

    Args:
        url: SQLAlchemy URL, `sqlite:///file.db` or `postgresql://...`.
    """

    def __init__(self, url: str | URL) -> None:
        given = make_url(url)
        self.url = given.set(drivername=DRIVERS.get(given.drivername, given.drivername))
        self.is_postgres = self.url.get_backend_name() == "postgresql"
        self._engine = _engine(self.url)
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="waits-read")
        self._writer: threading.Thread | None = None
        self._starting = threading.Lock()

    async def start(self) -> None:
        """Create the tables, or bring them up to date."""
        await self.write(self._migrate)

    async def stop(self) -> None:
        """Close the connections, once everything that waits to be written is written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._queue.put(None)
            await asyncio.to_thread(writer.join)
        self._readers.shutdown(wait=False)
        self._engine.dispose()

    async def write(self, operation: Callable[[Connection], R], *, order: str = "") -> R:
        """Run an operation in a write transaction, and return when it is committed.

        Args:
            operation: What to do; with other operations before and after it in one transaction.
            order: Rows of which task it locks. Operations are made in this order, so that relays do not deadlock.
        """
        return await asyncio.wrap_future(self.write_soon(operation, order=order))

    def write_soon(self, operation: Callable[[Connection], R], *, order: str = "") -> "Future[R]":
        """The same, from any thread."""
        with self._starting:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="waits-write", daemon=True)
                self._writer.start()
        done: Future[R] = Future()
        self._queue.put(_Write(operation, done, order))
        return done

    async def read(self, operation: Callable[[Connection], R]) -> R:
        """Run an operation that only reads."""

        def run() -> R:
            with self._engine.execution_options(read=True).connect() as db:
                return operation(db)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    def _migrate(self, db: Connection) -> None:
        if self.is_postgres:  # of relays that start at once, one creates the tables
            db.execute(select(func.pg_advisory_xact_lock(lock_key("schema"))))
        migrate(db)

    def _write_all(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < BATCH:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            self._commit([write for write in batch if write.done.set_running_or_notify_cancel()])
            if last:
                return

    def _commit(self, batch: list[_Write]) -> None:
        """One transaction for all of them; nobody hears of it before it is committed."""
        results: dict[_Write, Any] = {}
        errors: dict[_Write, BaseException] = {}
        try:
            with self._engine.begin() as db:
                for write in sorted(batch, key=lambda write: write.order):
                    try:
                        with db.begin_nested():
                            results[write] = write.operation(db)
                    except Exception as error:
                        errors[write] = error
        except Exception as error:  # nothing of it is written
            results = {}
            errors = {write: errors.get(write, error) for write in batch}
        for write in batch:
            if write not in errors:
                write.done.set_result(results[write])
            elif _deadlocked(errors[write]) and write.tries < TRIES:
                again = _Write(write.operation, Future(), write.order, write.tries + 1)
                again.done.add_done_callback(partial(_pass_on, to=write.done))
                self._queue.put(again)
            else:
                write.done.set_exception(errors[write])


def lock_key(what: str) -> int:
    """Key of a PostgreSQL advisory lock; the database may hold other applications' locks."""
    return int.from_bytes(hashlib.sha256(f"awaithumans-relay {what}".encode()).digest()[:8], signed=True)


def _pass_on(ended: "Future[Any]", to: "Future[Any]") -> None:
    error = ended.exception()
    if error is None:
        to.set_result(ended.result())
    else:
        to.set_exception(error)


def _deadlocked(error: BaseException) -> bool:
    """Whether the database has chosen this write to give way; it may be made again."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in ("40P01", "40001")


def _use_wal(cursor: Any) -> None:
    """Switch to the write-ahead log. While another process does so, SQLite says "locked" without waiting."""
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except SQLiteOperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=READERS + 1)
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def configure(dbapi: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
        dbapi.isolation_level = None  # transactions are begun below, with their write lock
        cursor = dbapi.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA synchronous=FULL")
        _use_wal(cursor)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(db: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
        reading = db.get_execution_options().get("read")
        db.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine
