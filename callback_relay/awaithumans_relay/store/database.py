"""One database with one writer: a thread that combines all pending writes into one transaction.

Law: what has been acknowledged is stored. `write` returns after the commit. Callers that arrive at the same moment
share a commit, which costs as much for a hundred as for one. When one of the writes fails, all of them are repeated,
each in its own savepoint, so that the error reaches only its own caller. A transaction that has begun continues when
its caller is cancelled.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import cleaned
from awaithumans_relay.store.connections import READERS, Connections
from awaithumans_relay.store.errors import StoreUnavailableError
from awaithumans_relay.store.table.schema import migrate
from awaithumans_relay.store.write_queue import Write, WriteQueue

T = TypeVar("T")
R = TypeVar("R")

TRIES = 3
"""Maximum number of repetitions of a write that deadlocked with another relay."""
_POSTGRES: tuple[str, ...] = ("", "asyncpg", "pg8000", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async")
_SQLITE: tuple[str, ...] = ("", "pysqlite", "aiosqlite")
DRIVERS: Mapping[str, Mapping[str, str]] = {
    "sqlite": dict.fromkeys(_SQLITE, "sqlite+pysqlite"),
    "postgresql": dict.fromkeys(_POSTGRES, "postgresql+psycopg"),
    "postgres": dict.fromkeys(_POSTGRES, "postgresql+psycopg"),
}
"""The relay's own driver, by kind of database and by the driver that an application names. The data is the same."""

KINDS = (
    "write sqlite:///waits.db (a relative file), sqlite:////var/lib/relay/waits.db or "
    "postgresql://user:password@host/name; no other kind is known"
)
"""The hint in the error about a wrong URL."""

INSTALL_POSTGRES = "PostgreSQL needs psycopg: pip install 'awaithumans-workflows[postgres]'"
_OPTION_ADVICE = {
    "ssl": "write sslmode=require in its place",
    "schema": "write options=-csearch_path%3DNAME in its place",
}
"""Advice on options that only other drivers know."""


def parsed(url: str | URL) -> URL:
    """Return the cleaned URL of a database that can keep waits, with the driver of this package.

    Raises:
        SettingsError: The URL is not usable. A URL that cannot be parsed may hold a password anywhere, so it is not
            repeated.
    """
    try:
        given = make_url(cleaned(url) if isinstance(url, str) else url)
    except (ArgumentError, ValueError):
        raise SettingsError(f"not a database URL: {KINDS}") from None
    if "@" in (given.host or ""):
        raise SettingsError(
            "the database URL has more than one @: in a user's name or a password write it as %40, / as %2F, : as %3A"
        )
    kind, _, driver = given.drivername.partition("+")
    if kind not in DRIVERS:
        raise SettingsError(f"not a database URL of a known kind, {shown(given)}: {KINDS}")
    if (own := DRIVERS[kind].get(driver)) is None:
        raise SettingsError(
            f"the database URL names the driver {driver!r}, which the relay cannot use: write it as {shown(given)}"
        )
    if kind == "sqlite" and given.database in {None, "", ":memory:"}:
        raise SettingsError(f"the database URL names no file, and waits must outlive the process: {KINDS}")
    return given.set(drivername=own)


def shown(url: URL) -> str:
    """Return the URL as text without its driver and without a password, which may be in its query as well."""
    secret = [name for name in url.query if "password" in name.lower()]
    plain = url.set(drivername=url.get_backend_name()).difference_update_query(secret)
    return plain.render_as_string(hide_password=True)


def _check_psycopg(url: URL) -> None:
    """Check that psycopg is installed and knows the options of this URL."""
    try:
        from psycopg import pq
    except ImportError as missing:  # psycopg itself, or the C library it needs
        raise SettingsError(f"{INSTALL_POSTGRES} ({missing})") from None
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in url.query:
        if name not in known:
            advice = _OPTION_ADVICE.get(name, "remove it")
            raise SettingsError(
                f"the database URL {shown(url)} has the option {name!r}, which PostgreSQL does not know: {advice}"
            )


class Database:
    """Connections to one database, usable from any thread and any event loop.

    Args:
        url: SQLAlchemy URL, `sqlite:///file.db` or `postgresql://...`.

    Raises:
        SettingsError: The URL is not such a URL, or psycopg is not installed.
    """

    def __init__(self, url: str | URL) -> None:
        self.url = parsed(url)
        self.is_postgres = self.url.get_backend_name() == "postgresql"
        if self.is_postgres:
            _check_psycopg(self.url)
        self._connections = Connections(self.url, self._migrate)
        self._queue = WriteQueue()
        self._gathered: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Write]] = WeakKeyDictionary()
        """Writes requested in the current iteration of each event loop.

        They are handed over together so that they share a commit.
        """
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="waits-read")
        self._writer: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopped = False

    async def start(self) -> None:
        """Open the database, and create or migrate the tables. It may have been stopped before."""
        if self._stopped:
            self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="waits-read")
            self._stopped = False
        await self.write(self._migrate)

    async def stop(self) -> None:
        """Close the connections after all queued writes are made. Later requests are refused."""
        self._hand_over(self._gathered.get(asyncio.get_running_loop(), []))
        with self._starting:
            self._stopped = True
            writer, self._writer = self._writer, None
            if writer is not None:
                self._queue.close()
        if writer is not None:
            await asyncio.to_thread(writer.join)
        await asyncio.to_thread(self._readers.shutdown)  # a read whose caller was cancelled still holds its connection
        if writer is None:
            self._connections.dispose()
        else:
            await asyncio.to_thread(self._connections.close)

    async def write(self, operation: Callable[[Connection], R], *, order: str = "", later: bool = False) -> R:
        """Run an operation in a write transaction, and return its result after the commit.

        Args:
            operation: What to do. It shares a transaction with other operations before and after it. It runs a second
            time
                when one of them fails.
            order: The id of the task whose rows it locks. Operations run in this order, so that relays do not deadlock.
            later: Whether the write is deferred for a moment in favour of acknowledgements.
        """
        return await self.write_each(lambda db, _: [operation(db)], None, order=order, later=later)

    async def write_each(
        self, operation: Callable[[Connection, Sequence[T]], Sequence[R]], item: T, *, order: str, later: bool = False
    ) -> R:
        """Run an operation that handles many items at about the cost of one, together with the items of other callers.

        Like `write`, it returns after the commit.

        Args:
            operation: Receives the items of all waiting callers, in their order, and returns the result of each.
            item: The item of this caller.
            order: The id of the task whose rows it locks, as for `write`.
            later: Whether the write is deferred for a moment in favour of acknowledgements, as for `write`.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        gathered = self._gathered.setdefault(loop, [])
        if not gathered:  # writes requested in the same iteration of the loop are handed over together
            loop.call_soon(self._hand_over, gathered)
        gathered.append(Write(operation, item, done, order, loop, later))
        return await done

    def write_soon(self, operation: Callable[[Connection], R], *, order: str = "") -> "Future[R]":
        """Queue an operation from any thread, as `write` does, and return a future of its result."""
        done: Future[R] = Future()
        self._enqueue([Write(lambda db, _: [operation(db)], None, done, order, None)])
        return done

    async def read(self, operation: Callable[[Connection], R]) -> R:
        """Run an operation that only reads, and return its result."""

        def run() -> R:
            with self._connections.read() as db:
                return operation(db)

        if self._stopped:
            raise _stopped()
        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    def _migrate(self, db: Connection) -> None:
        if self.is_postgres:  # of several relays that start at once, only one creates the tables
            db.execute(select(func.pg_advisory_xact_lock(lock_key("schema"))))
        migrate(db)

    def _hand_over(self, gathered: list[Write]) -> None:
        writes = gathered.copy()
        gathered.clear()
        if writes:
            self._enqueue(writes)

    def _enqueue(self, writes: Sequence[Write]) -> None:
        with self._starting:
            if not self._stopped:
                if self._writer is None:
                    self._writer = threading.Thread(target=self._write_all, name="waits-write", daemon=True)
                    self._writer.start()
                self._queue.put(*writes)
                return
        _fail(writes, _stopped())
        self._tell(writes)

    def _write_all(self) -> None:
        while batch := self._queue.batch():
            wanted = [write for write in batch if not write.done.cancelled()]
            self._commit(sorted(wanted, key=lambda write: write.order))
            self._tell(wanted)

    def _commit(self, batch: list[Write]) -> None:
        """Write the batch in one transaction. No caller is notified before it is committed."""
        begun = False
        try:
            with self._connections.write() as db:
                begun = True
                for operation, writes in groupby(batch, key=lambda write: write.operation):
                    _make(operation, list(writes), db)
                begun = False
        except Exception as error:  # nothing in this transaction was written
            # After a lock timeout the writes are not repeated one by one, because each would wait for the lock again.
            if begun and len(batch) > 1 and not _locked(error):
                self._commit_apart(batch)
            else:
                _fail(batch, error)

    def _commit_apart(self, batch: list[Write]) -> None:
        """Repeat a failed batch with a savepoint for each write.

        A savepoint costs as much as the write in it, so it is used only after a failure.
        """
        try:
            with self._connections.write() as db:
                for write in batch:
                    try:
                        with db.begin_nested():
                            _make(write.operation, [write], db)
                    except Exception as error:
                        write.error = error
                        if not _goes_on(db):
                            raise
        except Exception as error:
            _fail(batch, error)

    def _tell(self, batch: Sequence[Write]) -> None:
        """Report the results to the callers.

        Each event loop is woken once, because waking it costs as much as a write.
        """
        waiting: dict[asyncio.AbstractEventLoop | None, list[Write]] = {}
        for write in batch:
            if _deadlocked(write.error) and write.tries < TRIES:
                write.error, write.tries = None, write.tries + 1
                self._queue.put(write)
            else:
                waiting.setdefault(write.loop, []).append(write)
        for loop, writes in waiting.items():
            if loop is None:
                _settle(writes)
            else:
                with suppress(RuntimeError):  # the loop is closed, so no caller waits for the result
                    loop.call_soon_threadsafe(_settle, writes)


def _make(operation: Callable[[Connection, Sequence[Any]], Sequence[Any]], writes: list[Write], db: Connection) -> None:
    results = operation(db, [write.item for write in writes])
    for write, result in zip(writes, results, strict=True):
        write.result = result


def _stopped() -> StoreUnavailableError:
    return StoreUnavailableError("the store has been stopped")


def lock_key(what: str) -> int:
    """Return the key of a PostgreSQL advisory lock.

    The database may hold other applications' locks, so it is a hash.
    """
    return int.from_bytes(hashlib.sha256(f"awaithumans-relay {what}".encode()).digest()[:8], signed=True)


def _fail(batch: Sequence[Write], error: BaseException) -> None:
    for write in batch:
        write.error = write.error or error


def _settle(writes: list[Write]) -> None:
    for write in writes:
        with suppress(InvalidStateError, asyncio.InvalidStateError):  # the caller was cancelled in the meantime
            if write.error is None:
                write.done.set_result(write.result)
            else:
                write.done.set_exception(write.error)


def _goes_on(db: Connection) -> bool:
    """Whether the transaction survived an error.

    After a disk failure SQLite has rolled back all of it, savepoints included. To continue would commit nothing, and
    would acknowledge the writes before the error.
    """
    # On PostgreSQL the commit itself fails.
    return bool(getattr(db.connection.dbapi_connection, "in_transaction", True))


def _locked(error: BaseException) -> bool:
    """Whether PostgreSQL has reached the lock timeout."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) == "55P03"


def _deadlocked(error: BaseException | None) -> bool:
    """Whether the database has aborted this write to resolve a deadlock. It may be repeated."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in ("40P01", "40001")
