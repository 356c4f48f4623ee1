"""The waits table: one row for one asker waiting on one task. `open -> answered -> delivered`, or `parked`.

Law: what has been acknowledged is stored. Registering, answering (by callback or by sweep) and delivering are three
updates of one row, each committed before anybody is told. Registration and callback may come in either order, any
number of times.

An answer reaches only rows that wait for the same question: task id and idempotency key must both be the outcome's.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Any, TypeVar, cast

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    MetaData,
    RowMapping,
    Select,
    String,
    Table,
    Text,
    and_,
    event,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_relay.schedule import next_check

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])

DEFAULT_DATABASE = "sqlite+aiosqlite:///awaithumans-relay.db"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 10_000
"""How long SQLite waits for another process's write before it gives up."""


class WaitState(StrEnum):
    """The life of a wait."""

    OPEN = "open"
    ANSWERED = "answered"
    DELIVERED = "delivered"
    PARKED = "parked"


metadata = MetaData()

waits = Table(
    "waits",
    metadata,
    Column("task_id", String(255), primary_key=True),
    Column("route_digest", String(32), primary_key=True),
    Column("engine", String(255), nullable=False),
    Column("target", JSON, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("registered_at", Float),
    Column("deadline_at", Float, nullable=False),
    Column("next_check_at", Float, nullable=False),
    Column("outcome", JSON(none_as_null=True)),
    Column("found_by", String(16)),
    Column("answered_at", Float),
    Column("next_attempt_at", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_ready_since", Float),
    Column("lease_owner", String(64)),
    Column("lease_until", Float),
    Column("delivered_at", Float),
    Column("last_error", Text),
    Index("waits_to_check", "state", "next_check_at"),
    Index("waits_to_deliver", "state", "engine", "next_attempt_at"),
    Index("waits_leased", "lease_owner"),
)

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))


@dataclass(frozen=True, slots=True)
class Wait:
    """One row, read. Times are epoch seconds."""

    task_id: str
    route: Route
    state: WaitState
    created_at: float
    deadline_at: float
    next_check_at: float
    """When the sweep looks at the task next, as long as the wait is open."""
    outcome: Outcome | None
    found_by: str | None
    """How the answer came: `callback`, `sweep` or `registration` (it was here before the asker registered)."""
    answered_at: float | None
    attempts: int
    """Deliveries tried since it was answered, or since it was last redriven."""
    not_ready_since: float | None
    """Since when the target has answered that it is not ready; None when it last said something else."""
    delivered_at: float | None
    """When it was first delivered; kept when a registration asks for the answer again."""
    last_error: str | None


def _whole(method: F) -> F:
    """Let a transaction end, however its caller ends: one that is cut off would keep the database locked."""

    @wraps(method)
    async def run(self: "Store", *args: Any, **kwargs: Any) -> Any:
        return await self.to_its_end(method(self, *args, **kwargs))

    return cast("F", run)


class Store:
    """Waits on SQLite (default) or PostgreSQL, through SQLAlchemy Core.

    Args:
        url: SQLAlchemy URL: `sqlite+aiosqlite:///file.db`, or `postgresql://...` for any number of relays.
        clock: Epoch seconds.
    """

    def __init__(self, url: str | URL = DEFAULT_DATABASE, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.url = _with_driver(make_url(url))
        self._engine = _engine(self.url)
        self._reader = self._engine.execution_options(read=True)
        self._under_way: set[asyncio.Future[Any]] = set()
        # SQLite has one writer; queueing here is fair, and cheaper than waiting for its lock.
        self._one_writer = asyncio.Lock() if self._engine.dialect.name == "sqlite" else None

    async def start(self) -> None:
        """Create the table when it is not there. Raises RuntimeError when another release's table is."""
        async with self._write() as db:
            if self._one_writer is None:  # of relays that start at once, one creates the table
                await db.execute(select(func.pg_advisory_xact_lock(_lock_key("schema"))))
            await db.run_sync(metadata.create_all)
            found = (await db.execute(select(schema_version.c.version))).scalars().first()
            if found is None:
                await db.execute(schema_version.insert().values(version=SCHEMA_VERSION))
            elif found != SCHEMA_VERSION:
                raise RuntimeError(f"the database has schema version {found}; this release needs {SCHEMA_VERSION}")

    async def stop(self) -> None:
        """Close the connections, once the transactions under way have ended."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._engine.dispose()

    async def to_its_end(self, transaction: Coroutine[Any, Any, R]) -> R:
        """Run a transaction that goes on when its caller is cancelled."""
        task = asyncio.ensure_future(transaction)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    @_whole
    async def ping(self) -> None:
        """Raise when the database does not answer."""
        async with self._reader.connect() as db:
            await db.execute(text("SELECT 1"))

    @_whole
    async def register(self, task_id: str, route: Route, timeout_seconds: int) -> WaitState:
        """An asker waits.

        An answer that is here already is delivered. One that was delivered before is delivered again if the same route
        registers once more: then somebody new waits there for the same question, and to everybody else a second
        delivery is harmless.
        """
        now = self.clock()
        async with self._write() as db:
            await self._insert(db, task_id, route, now=now, deadline_at=now + timeout_seconds)
            this = _this(task_id, route)
            state, registered_before = (
                await db.execute(select(waits.c.state, waits.c.registered_at).where(this))
            ).one()
            await db.execute(update(waits).where(this).values(registered_at=now))
            outcome = await self._known_outcome(db, task_id, route.idempotency_key)
            served = state == WaitState.ANSWERED or (state == WaitState.DELIVERED and registered_before is None)
            if outcome is not None and not served:
                await db.execute(update(waits).where(this).values(**_answered(outcome, "registration", now)))
                state = WaitState.ANSWERED
            elif state == WaitState.PARKED and outcome is None:  # set aside too early: somebody does wait for this task
                await db.execute(update(waits).where(this).values(state=WaitState.OPEN, next_check_at=now))
                state = WaitState.OPEN
        return WaitState(state)

    @_whole
    async def answer(self, outcome: Outcome, *, found_by: str, route: Route | None = None) -> int:
        """A task has ended. Returns how many waits this answered: 0 when all of them knew already.

        Args:
            outcome: A terminal outcome with its idempotency key.
            found_by: `callback` or `sweep`.
            route: From a callback's URL: waits for the answer even when its registration has not come yet.
        """
        now = self.clock()
        async with self._write() as db:
            if route is not None:
                await self._insert(db, outcome.task_id, route, now=now, deadline_at=now)
            hit = await db.execute(
                update(waits)
                .where(
                    _same_question(outcome.task_id, outcome.idempotency_key or ""),
                    waits.c.outcome.is_(None),  # open, or parked because nobody knew of the task
                )
                .values(**_answered(outcome.value(), found_by, now))
            )
        return hit.rowcount

    @_whole
    async def claim_checks(self, limit: int) -> list[Wait]:
        """Open waits that are due for a look, each put off to its next one."""
        now = self.clock()
        due = (
            select(waits)
            .where(waits.c.state == WaitState.OPEN, waits.c.next_check_at <= now)
            .order_by(waits.c.next_check_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._write() as db:
            found = [_wait(row) for row in (await db.execute(due)).mappings()]
            for wait in found:
                later = next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at)
                await db.execute(update(waits).where(_this(wait.task_id, wait.route)).values(next_check_at=later))
        return found

    @_whole
    async def lease(self, engine: str, owner: str, *, limit: int, seconds: float) -> list[Wait]:
        """Answered waits to deliver now, at most one for each target, held by `owner` for `seconds`."""
        now = self.clock()
        answered = and_(waits.c.state == WaitState.ANSWERED, waits.c.engine == engine)
        held = waits.c.lease_until > now
        busy = select(waits.c.target_id).where(answered, held)
        due = (
            select(waits)
            .where(answered, waits.c.next_attempt_at <= now, waits.c.target_id.not_in(busy))
            .order_by(waits.c.next_attempt_at, waits.c.answered_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._write() as db:
            first_of_target: dict[str, Wait] = {}
            for row in (await db.execute(due)).mappings():
                first_of_target.setdefault(row["target_id"], _wait(row))
            mine = await self._lock_targets(db, engine, list(first_of_target), busy)
            leased = [wait for target_id, wait in first_of_target.items() if target_id in mine]
            for wait in leased:
                await db.execute(
                    update(waits)
                    .where(_this(wait.task_id, wait.route))
                    .values(lease_owner=owner, lease_until=now + seconds, attempts=waits.c.attempts + 1)
                )
        return leased

    async def _lock_targets(
        self, db: AsyncConnection, engine: str, target_ids: list[str], busy: Select[tuple[str]]
    ) -> set[str]:
        """Those of the targets that no other relay leases a wait of at this moment.

        SQLite has one writer, so there it is all of them. On PostgreSQL two relays may come to two waits of one target
        at once, neither seeing the other's lease before it is committed: whoever has the target's lock goes on, and
        looks again.
        """
        if self._one_writer is not None or not target_ids:
            return set(target_ids)
        locked: list[str] = []
        for target_id in sorted(target_ids):
            mine = select(func.pg_try_advisory_xact_lock(_lock_key(f"target {engine} {target_id}")))
            if (await db.execute(mine)).scalar_one():
                locked.append(target_id)
        leased_meanwhile = (await db.execute(busy.where(waits.c.target_id.in_(locked)))).scalars()
        return set(locked) - set(leased_meanwhile)

    @_whole
    async def renew(self, owner: str, *, seconds: float) -> int:
        """Hold all leases of a relay longer. Returns how many there are."""
        async with self._write() as db:
            hit = await db.execute(
                update(waits).where(waits.c.lease_owner == owner).values(lease_until=self.clock() + seconds)
            )
        return hit.rowcount

    async def delivered(self, wait: Wait, owner: str, *, note: str | None = None) -> bool:
        """The asker has the outcome, or does not want it any more, as the note says."""
        now = self.clock()
        return await self._finish(
            wait,
            owner,
            state=WaitState.DELIVERED,
            delivered_at=wait.delivered_at or now,
            last_error=note,
            **_RELEASED,
        )

    async def retry(self, wait: Wait, owner: str, *, after: float, error: str, not_ready: bool) -> bool:
        """Try again `after` seconds from now; remember since when the target has been there and not ready."""
        now = self.clock()
        since = (wait.not_ready_since or now) if not_ready else None
        values = {"next_attempt_at": now + after, "last_error": error, "not_ready_since": since}
        return await self._finish(wait, owner, **values, **_RELEASED)

    async def park(self, wait: Wait, owner: str, *, reason: str) -> bool:
        """Set an answered wait aside: delivery is known to be impossible."""
        return await self._finish(wait, owner, state=WaitState.PARKED, last_error=reason, **_RELEASED)

    @_whole
    async def park_open(self, wait: Wait, *, reason: str) -> bool:
        """Set an open wait aside: there is no such question. A callback with its answer brings it back."""
        still_open = and_(_this(wait.task_id, wait.route), waits.c.state == WaitState.OPEN)
        async with self._write() as db:
            hit = await db.execute(update(waits).where(still_open).values(state=WaitState.PARKED, last_error=reason))
        return hit.rowcount == 1

    @_whole
    async def postpone_checks(self, missed: Sequence[Wait], seconds: float) -> None:
        """Look again soon at waits whose look did not come about."""
        async with self._write() as db:
            for wait in missed:
                later = update(waits).where(_this(wait.task_id, wait.route), waits.c.state == WaitState.OPEN)
                await db.execute(later.values(next_check_at=self.clock() + seconds))

    @_whole
    async def counts(self) -> dict[str, int]:
        """How many waits there are in each state."""
        async with self._reader.connect() as db:
            rows = await db.execute(select(waits.c.state, func.count()).group_by(waits.c.state))
            return {row[0]: row[1] for row in rows}

    @_whole
    async def find(self, task_id: str) -> list[Wait]:
        """All waits on a task."""
        async with self._reader.connect() as db:
            rows = await db.execute(select(waits).where(waits.c.task_id == task_id))
            return [_wait(row) for row in rows.mappings()]

    @_whole
    async def engines(self) -> Collection[str]:
        """Engines that waits which are not finished name."""
        async with self._reader.connect() as db:
            unfinished = waits.c.state.in_([WaitState.OPEN, WaitState.ANSWERED])
            return set((await db.execute(select(waits.c.engine).where(unfinished).distinct())).scalars())

    @_whole
    async def _finish(self, wait: Wait, owner: str, **values: Any) -> bool:
        mine = and_(_this(wait.task_id, wait.route), waits.c.lease_owner == owner)
        async with self._write() as db:
            hit = await db.execute(update(waits).where(mine).values(**values))
        return hit.rowcount == 1

    async def _known_outcome(self, db: AsyncConnection, task_id: str, key: str) -> dict[str, Any] | None:
        known = select(waits.c.outcome).where(_same_question(task_id, key), waits.c.outcome.is_not(None)).limit(1)
        return (await db.execute(known)).scalar()

    async def _insert(self, db: AsyncConnection, task_id: str, route: Route, *, now: float, deadline_at: float) -> None:
        row = {
            "task_id": task_id,
            "route_digest": route.digest,
            "engine": route.engine,
            "target": dict(route.target),
            "target_id": route.target_id,
            "idempotency_key": route.idempotency_key,
            "state": WaitState.OPEN,
            "created_at": now,
            "deadline_at": deadline_at,
            "next_check_at": next_check(now=now, created_at=now, deadline_at=deadline_at),
            "attempts": 0,
        }
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        await db.execute(insert(waits).values(row).on_conflict_do_nothing())

    @asynccontextmanager
    async def _write(self) -> AsyncGenerator[AsyncConnection]:
        """One write transaction: committed when the block ends, before anybody hears of it."""
        if self._one_writer is None:
            async with self._engine.begin() as db:
                yield db
        else:
            async with self._one_writer, self._engine.begin() as db:
                yield db


_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
_RELEASED: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}


def _answered(outcome: Mapping[str, Any], found_by: str, now: float) -> dict[str, Any]:
    return {
        "state": WaitState.ANSWERED,
        "outcome": outcome,
        "found_by": found_by,
        "answered_at": now,
        "next_attempt_at": now,
        "attempts": 0,
        "not_ready_since": None,
        **_RELEASED,
    }


def _this(task_id: str, route: Route) -> ColumnElement[bool]:
    return and_(waits.c.task_id == task_id, waits.c.route_digest == route.digest)


def _same_question(task_id: str, key: str) -> ColumnElement[bool]:
    return and_(waits.c.task_id == task_id, waits.c.idempotency_key == key)


def _wait(row: RowMapping) -> Wait:
    return Wait(
        task_id=row["task_id"],
        route=Route(row["engine"], row["target"], row["idempotency_key"]),
        state=WaitState(row["state"]),
        created_at=row["created_at"],
        deadline_at=row["deadline_at"],
        next_check_at=row["next_check_at"],
        outcome=None if row["outcome"] is None else Outcome.model_validate(row["outcome"]),
        found_by=row["found_by"],
        answered_at=row["answered_at"],
        attempts=row["attempts"],
        not_ready_since=row["not_ready_since"],
        delivered_at=row["delivered_at"],
        last_error=row["last_error"],
    )


def _lock_key(what: str) -> int:
    """Key of a PostgreSQL advisory lock; the database may hold other applications' locks."""
    return int.from_bytes(hashlib.sha256(f"awaithumans-relay {what}".encode()).digest()[:8], signed=True)


def _with_driver(url: URL) -> URL:
    """The database's plain name means the driver that comes with the package."""
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=True)
    engine = create_async_engine(url)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(dbapi: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
        dbapi.isolation_level = None  # transactions are begun below, with their write lock
        cursor = dbapi.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(db: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # SQLAlchemy calls it
        reading = db.get_execution_options().get("read")
        db.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


__all__: Sequence[str] = ["DEFAULT_DATABASE", "Store", "Wait", "WaitState"]
