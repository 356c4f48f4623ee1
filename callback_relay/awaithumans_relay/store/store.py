"""The store of a relay: the waits table, with one part for each of its users."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future

from sqlalchemy import Connection, delete
from sqlalchemy.engine import URL

from awaithumans_core.route import Route
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.defaults import DEFAULT_DATABASE
from awaithumans_relay.store.readiness import PROBE_ENGINE, Readiness
from awaithumans_relay.store.table.conditions import this_wait
from awaithumans_relay.store.table.rows import add_row, open_row
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.waits.due_for_check import Checks
from awaithumans_relay.store.waits.intake import Intake
from awaithumans_relay.store.waits.lease_clock import LeaseClock
from awaithumans_relay.store.waits.leases import Leases
from awaithumans_relay.store.waits.missing_tasks import MissingTasks
from awaithumans_relay.store.waits.queries import Queries
from awaithumans_relay.store.waits.upkeep import Upkeep


class Store:
    """Waits on SQLite (default) or PostgreSQL, through SQLAlchemy Core.

    Args:
        url: SQLAlchemy URL: `sqlite:///file.db`, or `postgresql://...` for any number of relays.
        clock: Epoch seconds. Default: this machine's clock. Leases are compared between machines, so for them the
            default on PostgreSQL is the database's clock.
        steady: Monotonic clock in seconds, by which steps of the clock are detected. Default: this machine's. A `clock`
            given without it is assumed to make no steps.
    """

    def __init__(
        self,
        url: str | URL = DEFAULT_DATABASE,
        *,
        clock: Callable[[], float] | None = None,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock or time.time
        self.steady = steady or clock or time.monotonic
        self.database = Database(url)
        self.readiness = Readiness(self._write_probe, self.steady)
        self.intake = Intake(self.database, self.clock, self.readiness)
        """Registrations and answers."""
        self.leases = Leases(self.database, self._lease_clock(clock, steady), self.clock, self.steady)
        """Leases, and the results of deliveries: for the dispatcher."""
        self.checks = Checks(self.database, self.clock, self._lease_clock(clock, steady))
        """Open waits that are due for a check: for the sweep."""
        self.missing_tasks = MissingTasks(self.database, self.clock)
        """Tasks that the server does not know: for the sweep."""
        self.queries = Queries(self.database)
        """What operators and metrics read."""
        self.upkeep = Upkeep(self.database, self.clock, self.steady)
        """Redrives and deletions."""

    async def start(self) -> None:
        """Create the table, or migrate it. Raises RuntimeError when a later release created it."""
        await self.database.start()

    async def stop(self) -> None:
        """Close the connections after the transactions under way have ended."""
        await self.database.stop()

    def _lease_clock(self, clock: Callable[[], float] | None, steady: Callable[[], float] | None) -> LeaseClock:
        steps = ClockSteps(self.steady) if clock is None or steady is not None else None
        return LeaseClock(self.clock, steps, of_database=clock is None and self.database.is_postgres)

    def _write_probe(self) -> "Future[None]":
        """Start to write a probe wait that is deleted in the same transaction."""
        now, this = self.clock(), secrets.token_hex(8)
        route = Route(PROBE_ENGINE, {"readiness": this}, this)
        row = open_row(f"{PROBE_ENGINE}-{this}", route, now=now, deadline_at=now)
        probe = delete(waits).where(this_wait(row["task_id"], route))

        def write(db: Connection) -> None:
            add_row(db, row)
            db.execute(probe)

        return self.database.write_soon(write)
