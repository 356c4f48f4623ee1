"""The files of an open SQLite database, and whether they are still the ones at its path.

Law: what has been acknowledged is stored where a restarted relay finds it. SQLite goes on writing to a file that was
deleted or replaced, and everything in it is lost when the process ends. So the files are compared before a transaction
writes anything, and again after its commit, before the commit is reported.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from sqlite3 import Cursor

from awaithumans_relay.store.errors import StoreUnavailableError

Identity = tuple[int, int]
"""Device and inode of a file."""
GONE: Identity = (0, 0)
"""The identity of a file that does not exist."""


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files of one connection, with their identities at the time it was opened."""

    path: str
    """The database file's own path, without symbolic links."""
    database: Mapping[str, Identity]
    """The database file at its own path, and at the configured one, which may be a symbolic link."""
    log: Mapping[str, Identity]
    """The write-ahead log and its index, beside it."""

    @classmethod
    def of(cls, cursor: Cursor, configured: str | None) -> "OpenFiles":
        """Return the files of a connection that has just been opened in WAL mode.

        Args:
            cursor: A cursor of that connection.
            configured: The path in the database's URL.
        """
        cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the log, or creates it
        path = cursor.execute("PRAGMA database_list").fetchone()[2]
        paths = {path, path if configured is None or configured.startswith("file:") else os.path.abspath(configured)}
        return cls(path, {each: identity(each) for each in paths}, {each: identity(each) for each in _log_of(path)})

    def check(self) -> None:
        """Raise StoreUnavailableError unless every file at its path is still the open one."""
        for path, known in (*self.database.items(), *self.log.items()):
            if (found := identity(path)) != known:
                fate = "was deleted" if found == GONE else "was replaced"
                raise StoreUnavailableError(f"the database file {os.path.basename(path)} {fate} while the relay runs")

    @property
    def in_place(self) -> bool:
        """Whether every file at its path is still the open one."""
        return self._database_in_place and all(identity(path) == known for path, known in self.log.items())

    @property
    def only_log_deleted(self) -> bool:
        """Whether only the log was deleted: the database file is in place, and no process has created a new log."""
        return self._database_in_place and not self.in_place and self._no_other_log

    def check_only_log_deleted(self) -> None:
        """Raise StoreUnavailableError if another relay has replaced the file, or a process has created a new log."""
        if not self.only_log_deleted:
            raise StoreUnavailableError(f"the database file {os.path.basename(self.path)} has changed again")

    @property
    def log_left_behind(self) -> bool:
        """Whether the database is no longer at its own path while its log still is.

        SQLite would apply that log to the next database at the path. If only a symbolic link has changed, the database
        and its log are healthy, and other processes may be using them.
        """
        return identity(self.path) != self.database[self.path] and any(
            identity(path) == known for path, known in self.log.items()
        )

    def remove_log(self) -> None:
        """Delete the log that was left behind. Do nothing if the database has reappeared in the meantime."""
        for path, known in self.log.items():
            if identity(path) == known and identity(self.path) != self.database[self.path]:
                os.unlink(path)

    @property
    def _database_in_place(self) -> bool:
        return all(identity(path) == known for path, known in self.database.items())

    @property
    def _no_other_log(self) -> bool:
        return all(identity(path) in {known, GONE} for path, known in self.log.items())


def identity(path: str) -> Identity:
    """Return the device and inode of the file at a path.

    Raises:
        StoreUnavailableError: The identity cannot be determined, for instance because a folder may not be read.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return GONE
    except OSError as refused:
        raise StoreUnavailableError(
            f"the database file {os.path.basename(path)} cannot be checked: {refused.strerror}"
        ) from refused
    return found.st_dev, found.st_ino


def _log_of(path: str) -> tuple[str, str]:
    return f"{path}-wal", f"{path}-shm"
