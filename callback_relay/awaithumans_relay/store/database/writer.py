"""One writer thread, which combines all pending writes into one transaction.

Law: what has been acknowledged is stored. No caller is notified before the commit. Callers that arrive at the same
moment share a commit, which costs as much for a hundred as for one. When one of the writes fails, all of them are
repeated, each in its own savepoint, so that the error reaches only its own caller. A transaction that has begun
continues when its caller is cancelled.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from itertools import groupby
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from awaithumans_relay.store.database.connections import Connections
from awaithumans_relay.store.database.write_queue import Write, WriteQueue
from awaithumans_relay.store.errors import StoreUnavailableError

MAX_DEADLOCK_RETRIES = 3
"""Maximum number of repetitions of a write that deadlocked with another relay."""


class Writer:
    """Makes writes in a thread of its own, which starts with the first of them. Usable from any thread.

    Args:
        connections: The connections of the database. This is the only user of the one for writing.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._queue = WriteQueue()
        self._thread: threading.Thread | None = None
        self._changing = threading.Lock()
        """Held while the thread is started or stopped."""
        self._stopped = False

    def open(self) -> None:
        """Accept writes, also after `close`."""
        self._stopped = False

    def put(self, writes: Sequence[Write]) -> None:
        """Queue writes. If the writer has been closed, they fail at once."""
        with self._changing:
            if not self._stopped:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="waits-write", daemon=True)
                    self._thread.start()
                self._queue.put(*writes)
                return
        _fail(writes, stopped_error())
        self._notify(writes)

    def close(self) -> threading.Thread | None:
        """Refuse further writes. Returns the thread, which ends once the queue is empty. None: there is no thread."""
        with self._changing:
            self._stopped = True
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.close()
        return thread

    @property
    def closed(self) -> bool:
        """Whether writes are refused."""
        return self._stopped

    def _run(self) -> None:
        while batch := self._queue.batch():
            wanted = [write for write in batch if not write.done.cancelled()]
            self._commit(sorted(wanted, key=lambda write: write.order))
            self._notify(wanted)

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
                        if not _transaction_survived(db):
                            raise
        except Exception as error:
            _fail(batch, error)

    def _notify(self, batch: Sequence[Write]) -> None:
        """Report the results to the callers.

        Each event loop is woken once, because waking it costs as much as a write.
        """
        waiting: dict[asyncio.AbstractEventLoop | None, list[Write]] = {}
        for write in batch:
            if _deadlocked(write.error) and write.tries < MAX_DEADLOCK_RETRIES:
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


def stopped_error() -> StoreUnavailableError:
    """Return the error of every request after the store has been stopped."""
    return StoreUnavailableError("the store has been stopped")


def _make(operation: Callable[[Connection, Sequence[Any]], Sequence[Any]], writes: list[Write], db: Connection) -> None:
    results = operation(db, [write.item for write in writes])
    for write, result in zip(writes, results, strict=True):
        write.result = result


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


def _transaction_survived(db: Connection) -> bool:
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
