"""Connections to one database: one for writing, a few for reading.

Law: no connection state outlives its transaction, because a pooler such as PgBouncer may run the next transaction in
another session. So there are no prepared statements, no SET, no LISTEN, no session locks and no server-side cursors.

On SQLite the writer's connection also detects that the file was deleted or replaced (`sqlite.open_files`). The
transaction then fails, and the next one continues in the file that is at the path by that time. Everything in the old
file can still be read through its open connection. It is copied to a temporary database first and then carried into the
new one. Nothing that was acknowledged is lost. A healthy database that other processes may use is not changed.
"""

import logging
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store.database.sqlite.open_files import OpenFiles
from awaithumans_relay.store.database.sqlite.private_files import create_private, database_file, report_readable
from awaithumans_relay.store.database.sqlite.recovery import carry
from awaithumans_relay.store.errors import StoreUnavailableError

logger = safe_logger("awaithumans.relay")

READERS = 2
LOCK_TIMEOUT_MS = 10_000
"""Maximum time that a statement waits for another process's lock before it fails.

A relay that waited without a limit would not refuse callbacks in the meantime, and would not end when it is stopped.
"""
LOGGING_NAME = "awaithumans_relay"
REOPEN_SECONDS = 1.0
"""Seconds between two attempts to continue in another file.

The folder may be missing, and the old file may be large.
"""
_FILES = "files"
_READ: dict[str, Any] = {"read": True}


class Connections:
    """The connections to one database, opened at their first use, and again after `close`.

    Args:
        url: SQLAlchemy URL with the driver.
        prepare: Creates the tables in a database, in the given transaction.
    """

    def __init__(self, url: URL, prepare: Callable[[Connection], None]) -> None:
        self._prepare = prepare
        self._writing = _engine(url, connections=1)
        self._reading = _engine(url, connections=READERS)
        self._reads = threading.Semaphore(READERS)
        """One permit for each read. The writer takes all of them while it changes to another file."""
        self._trouble: StoreUnavailableError | None = None
        """The problem with the SQLite file at the last transaction."""
        self._reopen_at = 0.0
        self._left: Engine | None = None
        """A copy of the contents of a file that was deleted or replaced, until they are carried over."""

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Open a transaction that only reads."""
        with self._reads, self._reading.execution_options(**_READ).connect() as db:
            yield db

    @contextmanager
    def write(self) -> Generator[Connection]:
        """Open a write transaction that commits when the block ends; for one thread at a time.

        Raises:
            StoreUnavailableError: The SQLite file is not at its path. When this is raised after the block, the commit
                may have been made in a file that no restart would find.
        """
        self._reopen_if_moved()
        try:
            with self._writing.begin() as db:
                files = _files(db)
                _check(files)
                yield db
            _check(files)
        except StoreUnavailableError as trouble:
            self._trouble = trouble
            raise

    def close(self) -> None:
        """Close all connections, the writer's last. Rescue the rows of a SQLite file that was deleted just before."""
        self._save_what_was_left()
        self.dispose()

    def dispose(self) -> None:
        """Close all connections when nothing was written."""
        if self._left is not None:
            self._left.dispose()
            self._left = None
        self._reading.dispose()
        self._writing.dispose()

    def _reopen_if_moved(self) -> None:
        if self._trouble is None:
            return
        if time.monotonic() < self._reopen_at:
            raise self._trouble
        self._reopen_at = time.monotonic() + REOPEN_SECONDS
        try:
            with self._without_reads():
                self._reopen()
        except Exception as trouble:
            reason = " ".join(str(getattr(trouble, "orig", None) or trouble).split())
            self._trouble = StoreUnavailableError(f"the database file cannot be opened again: {reason}")
            raise self._trouble from trouble
        self._trouble, self._reopen_at = None, 0.0

    def _reopen(self) -> None:
        if self._left is None:
            with self._writing.execution_options(**_READ).connect() as db:
                if (files := _files(db)) is None:
                    return
                if files.log_left_behind:
                    _checkpoint(db)
                    files.remove_log()
                if files.in_place:
                    return
                if files.only_log_deleted:
                    _replace_by_a_copy(db, files)
                else:
                    self._left = _copied(db)
        # The engines are disposed before the file at the path is opened. If it is the same file with another log,
        # SQLite would use the index of the old log for the new one while this process has the old one open.
        self._reading.dispose()
        self._writing.dispose()
        if self._left is not None:
            self._carry_over(self._left)

    def _carry_over(self, left: Engine) -> None:
        with left.connect() as old, self._writing.begin() as new:
            self._prepare(new)
            carried = carry(old, new)
            files = _files(new)
        _check(files)
        left.dispose()
        self._left = None
        logger.warning("the SQLite file was deleted or replaced; its %d rows are in the one at its path now", carried)

    def _save_what_was_left(self) -> None:
        """Rescue the rows of a deleted file, which would be lost when the process ends."""
        try:
            if self._trouble is None:
                with self._writing.connect() as db:
                    _check(_files(db))
                return
        except StoreUnavailableError as trouble:
            self._trouble = trouble
        except Exception:  # the database does not answer; what was committed is in it
            return
        try:
            self._reopen_at = 0.0
            self._reopen_if_moved()
        except StoreUnavailableError:
            logger.exception("the SQLite file is not at its path; waits that are in no other file are lost")

    @contextmanager
    def _without_reads(self) -> Generator[None]:
        with ExitStack() as stack:
            for _ in range(READERS):
                stack.enter_context(self._reads)
            yield


def _files(db: Connection) -> OpenFiles | None:
    found: OpenFiles | None = db.info.get(_FILES)
    return found


def _check(files: OpenFiles | None) -> None:
    if files is not None:
        files.check()


def _copied(db: Connection) -> Engine:
    """Copy everything that this connection reads to a temporary database. SQLite deletes it when it is closed."""
    copy = sqlite3.connect("", check_same_thread=False)
    try:
        _driver(db).backup(copy)
    except BaseException:
        copy.close()
        raise
    return create_engine("sqlite://", creator=lambda: copy, poolclass=StaticPool, hide_parameters=True)


def _replace_by_a_copy(db: Connection, files: OpenFiles) -> None:
    """Replace the database file by a complete copy, because its log was deleted while it was open.

    Other relays then detect that the file was replaced. A new log beside the same file would be mixed up with the old
    one by processes that still have the old one open.
    """
    copy = f"{files.path}.{secrets.token_hex(4)}"
    try:
        create_private(copy)
        with closing(sqlite3.connect(copy)) as target:
            _driver(db).backup(target)
        shutil.copymode(files.path, copy)
        files.check_only_log_deleted()
        os.replace(copy, files.path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(copy)
        raise
    files.remove_log()


def _driver(db: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", db.connection.driver_connection)


def _checkpoint(db: Connection) -> None:
    """Write everything in the log to the database, so that the log is no longer needed. Both may be deleted files.

    It does not use TRUNCATE, which would empty a log that another process has created in the meantime.
    """
    cursor = db.connection.cursor()
    try:
        busy = cursor.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
    finally:
        cursor.close()
    if busy:
        raise StoreUnavailableError("another process is still reading from its write-ahead log")


def _without_rows(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _engine(url: URL, *, connections: int) -> Engine:
    # Parameters and rows hold questions, answers and tokens, so no log and no error may repeat them.
    silent: dict[str, Any] = {"hide_parameters": True, "logging_name": LOGGING_NAME}
    pool: dict[str, Any] = {"pool_size": connections, "max_overflow": 0}
    logging.getLogger(f"sqlalchemy.engine.Engine.{LOGGING_NAME}").addFilter(_without_rows)
    if url.get_backend_name() != "sqlite":
        # None disables prepared statements. psycopg would prepare one at its fifth use, in a session that a pooler
        # shares.
        options: dict[str, Any] = {"prepare_threshold": None} if url.get_driver_name() == "psycopg" else {}
        engine = create_engine(url, pool_pre_ping=True, connect_args=options, **pool, **silent)

        @event.listens_for(engine, "begin")
        def limit(db: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
            db.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")

        return engine
    engine = create_engine(url, **pool, **silent)

    @event.listens_for(engine, "do_connect")
    def create(dialect: Any, record: Any, args: Any, options: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        if (file := database_file(args[0])) is not None:
            create_private(file)

    @event.listens_for(engine, "connect")
    def configure(dbapi: Any, record: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
        dbapi.isolation_level = None  # the "begin" hook below begins transactions, with their write lock
        cursor = dbapi.cursor()
        cursor.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT_MS}")
        cursor.execute("PRAGMA synchronous=FULL")
        _use_wal(cursor)
        files = record.info[_FILES] = OpenFiles.of(cursor, url.database)
        report_readable(files.path)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(db: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
        reading = db.get_execution_options().get("read")
        db.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _use_wal(cursor: Any) -> None:
    """Switch the database to WAL mode, and retry while other processes do the same.

    When several workers start on a new file, all of them request WAL, and SQLite refuses all but one without waiting.
    """
    until = time.monotonic() + LOCK_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
