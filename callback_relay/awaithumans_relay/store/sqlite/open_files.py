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
"""Device and inode."""
GONE: Identity = (0, 0)
"""Of a file that does not exist."""


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files of one connection, as they were when it was opened."""

    path: str
    """The database file's own path, without symbolic links."""
    database: Mapping[str, Identity]
    """The database file at its own path, and at the configured one, which may be a symbolic link."""
    log: Mapping[str, Identity]
    """The write-ahead log and its index, beside it."""

    @classmethod
    def of(cls, cursor: Cursor, configured: str | None) -> "OpenFiles":
        """The files of a connection that has just been opened in WAL mode.

        Args:
            cursor: Of that connection.
            configured: The path in the database's URL.
        """
        cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the log, or creates it
        path = cursor.execute("PRAGMA database_list").fetchone()[2]
        paths = {path, path if configured is None or configured.startswith("file:") else os.path.abspath(configured)}
        return cls(path, {each: identity(each) for each in paths}, {each: identity(each) for each in _log_of(path)})

    def check(self) -> None:
        """Raise StoreUnavailableError unless every file is still the one that is open."""
        for path, known in (*self.database.items(), *self.log.items()):
            if (found := identity(path)) != known:
                fate = "was deleted" if found == GONE else "was replaced"
                raise StoreUnavailableError(f"the database file {os.path.basename(path)} {fate} while the relay runs")

    @property
    def in_place(self) -> bool:
        """Whether every file is the one that is open."""
        return self._database_in_place and all(identity(path) == known for path, known in self.log.items())

    @property
    def only_log_deleted(self) -> bool:
        """Whether the database is the one that is open, its log was deleted, and no process has begun another one."""
        return self._database_in_place and not self.in_place and self._no_other_log

    def check_only_log_deleted(self) -> None:
        """Raise StoreUnavailableError if another relay was faster, or a process has begun another log meanwhile."""
        if not self.only_log_deleted:
            raise StoreUnavailableError(f"the database file {os.path.basename(self.path)} has changed again")

    @property
    def log_left_behind(self) -> bool:
        """Whether the database is not at its own path any more, and its log still is.

        SQLite would apply that log to the next database at the path. If only a symbolic link has changed, the database
        and its log are healthy, and other processes may be using them.
        """
        return identity(self.path) != self.database[self.path] and any(
            identity(path) == known for path, known in self.log.items()
        )

    def remove_log(self) -> None:
        """Delete the log that is left behind, and nothing if the database has come back meanwhile."""
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
    """Device and inode of the file at a path.

    Raises:
        StoreUnavailableError: it cannot be determined, for instance because a folder may not be read.
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
