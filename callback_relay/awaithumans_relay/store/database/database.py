"""One database, read by a few threads and written by one (`writer`)."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, func, select
from sqlalchemy.engine import URL

from awaithumans_relay.store.database.connections import READERS, Connections
from awaithumans_relay.store.database.url import check_psycopg, parsed
from awaithumans_relay.store.database.write_queue import Write
from awaithumans_relay.store.database.writer import Writer, stopped_error
from awaithumans_relay.store.table.schema import migrate

T = TypeVar("T")
R = TypeVar("R")


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
            check_psycopg(self.url)
        self._connections = Connections(self.url, self._migrate)
        self._writer = Writer(self._connections)
        self._gathered: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Write]] = WeakKeyDictionary()
        """Writes requested in the current iteration of each event loop.

        They are handed over together so that they share a commit.
        """
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="waits-read")

    async def start(self) -> None:
        """Open the database, and create or migrate the tables. It may have been stopped before."""
        if self._writer.closed:
            self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="waits-read")
            self._writer.open()
        await self.write(self._migrate)

    async def stop(self) -> None:
        """Close the connections after all queued writes are made. Later requests are refused."""
        self._hand_over(self._gathered.get(asyncio.get_running_loop(), []))
        thread = self._writer.close()
        if thread is not None:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._readers.shutdown)  # a read whose caller was cancelled still holds its connection
        if thread is None:
            self._connections.dispose()
        else:
            await asyncio.to_thread(self._connections.close)

    async def write(self, operation: Callable[[Connection], R], *, order: str = "", later: bool = False) -> R:
        """Run an operation in a write transaction, and return its result after the commit.

        Args:
            operation: What to do. It shares a transaction with other operations before and after it. If one of them
                fails, each is run once more, alone.
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
        self._writer.put([Write(lambda db, _: [operation(db)], None, done, order, None)])
        return done

    async def read(self, operation: Callable[[Connection], R]) -> R:
        """Run an operation that only reads, and return its result."""

        def run() -> R:
            with self._connections.read() as db:
                return operation(db)

        if self._writer.closed:
            raise stopped_error()
        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    def _migrate(self, db: Connection) -> None:
        if self.is_postgres:  # of several relays that start at once, only one creates the tables
            db.execute(select(func.pg_advisory_xact_lock(lock_key("schema"))))
        migrate(db)

    def _hand_over(self, gathered: list[Write]) -> None:
        writes = gathered.copy()
        gathered.clear()
        if writes:
            self._writer.put(writes)


def lock_key(what: str) -> int:
    """Return the key of a PostgreSQL advisory lock.

    The database may hold other applications' locks, so it is a hash.
    """
    return int.from_bytes(hashlib.sha256(f"awaithumans-relay {what}".encode()).digest()[:8], signed=True)
