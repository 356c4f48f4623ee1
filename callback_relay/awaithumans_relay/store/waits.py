"""The operations on the waits table: `open -> answered -> delivered`, or `parked`.

Law: what has been acknowledged is stored. Registering, answering (by callback or by sweep) and delivering are three
updates of one row. Each is committed before its caller is notified. Registration and callback may come in either order,
any number of times.

An answer reaches only rows that wait for the same question: task id and idempotency key must both be the outcome's.
"""

import json
import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
    bindparam,
    cast,
    delete,
    extract,
    func,
    not_,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL

from awaithumans_core.deleted_tasks import RULE, Census, Missing, Rule
from awaithumans_core.errors import TooManyWaitsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import StartedRuns
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store.database.database import Database, lock_key
from awaithumans_relay.store.readiness import PROBE_ENGINE, Readiness
from awaithumans_relay.store.schedule import (
    LONGEST_LEASE_SECONDS,
    LONGEST_RETRY_SECONDS,
    MOST_CHECK_SECONDS,
    next_check,
    next_redelivery,
)
from awaithumans_relay.store.table import missing_tasks as missing_rows
from awaithumans_relay.store.table.answers import (
    Answer,
    Delivery,
    RunStart,
    write_answers,
    write_deliveries,
    write_run_starts,
)
from awaithumans_relay.store.table.batch_statements import Update
from awaithumans_relay.store.table.rows import (
    MISSING,
    READABLE,
    RELEASED,
    Wait,
    WaitState,
    answered,
    asked_at,
    kept,
    open_row,
    storable,
    wait_of,
)
from awaithumans_relay.store.table.schema import waits

MAX_OPEN_WAITS = 8
"""Maximum number of unanswered waits of one route. A route is one question, which has one task at a time."""
DEFAULT_DATABASE = "sqlite:///awaithumans-relay.db"
CROWD = 1000
"""Maximum number of answered waits to scan for one per target, so that a target with many does not hide the others."""
FEW = 2
"""The first scan covers this many times the wanted number of waits, because most targets have one wait."""


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
        self._shares_clock = clock is None and self.database.is_postgres
        self.readiness = Readiness(self._write_probe, self.steady)
        self._lease_steps = ClockSteps(self.steady) if clock is None or steady is not None else None

    async def start(self) -> None:
        """Create the table, or migrate it. Raises RuntimeError when a later release created it."""
        await self.database.start()

    async def stop(self) -> None:
        """Close the connections after the transactions under way have ended."""
        await self.database.stop()

    def _write_probe(self) -> "Future[None]":
        """Start to write a probe wait that is deleted in the same transaction."""
        now, this = self.clock(), secrets.token_hex(8)
        route = Route(PROBE_ENGINE, {"readiness": this}, this)
        row = open_row(f"{PROBE_ENGINE}-{this}", route, now=now, deadline_at=now)
        probe = delete(waits).where(_this(row["task_id"], route))

        def write(db: Connection) -> None:
            self._insert(db, row)
            db.execute(probe)

        return self.database.write_soon(write)

    async def register(self, task_id: str, route: Route, timeout_seconds: int, *, missing: bool = False) -> WaitState:
        """Register the wait of a caller, and return its state.

        An answer that is already stored is delivered. An answer that was delivered or parked before is delivered again
        if the same route registers once more, because its caller may have restarted. The first repeat is immediate.
        Further repeats have growing spacing, and their number is limited (`next_redelivery`).

        Args:
            task_id: The task.
            route: Where the answer must go.
            timeout_seconds: The timeout of the task.
            missing: Whether the caller, which asks again after a failure, did not find its task on the server.
                Otherwise a registration proves that the task exists.

        Raises:
            TooManyWaitsError: The route has `MAX_OPEN_WAITS` unanswered waits on other tasks.
        """
        now = self.clock()
        row = open_row(task_id, route, now=now, deadline_at=now + timeout_seconds)

        def write(db: Connection) -> WaitState | None:
            this = _this(task_id, route)
            if not _has_room(db, task_id, route):
                return None
            self._insert(db, row)
            if not missing:
                _found_again(db, task_id, route, now)
            before = db.execute(select(*_BEFORE_REGISTRATION).where(this)).one()
            state = before.state
            db.execute(update(waits).where(this).values(registered_at=now, **asked_at(route)))
            outcome, found_by = _known_outcome(db, task_id, route.idempotency_key, deleted=missing)
            served = state == WaitState.ANSWERED or (state == WaitState.DELIVERED and before.registered_at is None)
            if outcome is not None and not served:
                if not before.has_outcome:  # the first delivery
                    db.execute(update(waits).where(this).values(**answered(outcome, found_by, now)))
                    return WaitState.ANSWERED
                again = next_redelivery(now=now, count=before.redeliveries, last=before.redelivered_at)
                if again is None:
                    return WaitState(state)
                due, count = again
                counted = {"redeliveries": count, "redelivered_at": due}
                db.execute(update(waits).where(this).values(**answered(outcome, found_by, due), **counted))
                return WaitState.ANSWERED
            if state == WaitState.PARKED and outcome is None:  # parked too early: a caller does wait
                db.execute(update(waits).where(this).values(state=WaitState.OPEN, next_check_at=now))
                return WaitState.OPEN
            return WaitState(state)

        with self.readiness.storing():
            state = await self.database.write(write, order=task_id)
        if state is None:
            raise TooManyWaitsError(
                f"this route has {MAX_OPEN_WAITS} waits without an answer, on other tasks than {task_id}: give each "
                "question an idempotency key of its own",
                task_id=task_id,
            )
        return state

    async def answer(self, outcome: Outcome, *, found_by: str, route: Route | None = None) -> list[str]:
        """Store the outcome of a task. Returns the engine of each wait this answered; none if all had an answer.

        Args:
            outcome: A terminal outcome with its idempotency key.
            found_by: `callback` or `sweep`.
            route: The route in a callback's URL. It waits for the answer even when its registration has not come yet.
        """
        key = outcome.idempotency_key or ""
        answer = Answer(outcome.task_id, key, storable(outcome).value(), found_by, self.clock(), route)
        with self.readiness.storing():
            engines = await self.database.write_each(write_answers, answer, order=outcome.task_id)
        if engines:
            self.readiness.stored()
        return engines

    async def asked(self, route: Route) -> str | None:
        """Return the task of this route's open wait, or of one whose deletion has not been delivered to it yet."""
        undelivered = and_(waits.c.state == WaitState.ANSWERED, waits.c.found_by == MISSING)
        its = and_(waits.c.route_digest == route.digest, waits.c.idempotency_key == route.idempotency_key)
        open_one = select(waits.c.task_id).where(its, or_(waits.c.state == WaitState.OPEN, undelivered))
        latest = open_one.order_by(waits.c.created_at.desc()).limit(1)
        return await self.database.read(lambda db: db.execute(latest).scalar())

    async def missing(self, task_id: str, rule: Rule = RULE) -> Missing | None:
        """Record that the server does not know this task. None: no wait on it is open."""
        return await self.database.write(
            lambda db: missing_rows.record_missing(db, task_id, self.clock(), rule), order=task_id
        )

    async def seen(self, seen: Mapping[str, float]) -> None:
        """Record that these tasks were read, each at its time."""
        await self.database.write(lambda db: missing_rows.record_seen(db, seen), order=min(seen, default=""))

    async def review_missing(self, task_id: str, rule: Rule = RULE) -> missing_rows.Review:
        """End the waits on a task that was just read as missing, if that confirms its deletion."""
        return await self.database.write(lambda db: missing_rows.review(db, task_id, self.clock(), rule), order=task_id)

    async def any_missing(self) -> bool:
        """Whether the task of an open wait is missing."""
        return await self.database.read(missing_rows.any_missing)

    async def missing_doubt(self, rule: Rule = RULE) -> Census | None:
        """Return the census of missing tasks that keeps deletions from ending waits. None: nothing is in doubt."""
        return await self.database.read(lambda db: missing_rows.doubt(db, self.clock(), rule))

    async def missing_tasks(self, limit: int) -> tuple[int, list[str]]:
        """Return how many tasks of open waits are missing, and up to `limit` of them."""
        return await self.database.read(lambda db: missing_rows.missing_tasks(db, limit))

    async def claim_checks(self, limit: int) -> list[Wait]:
        """Return open waits that are due for a check, and schedule the next check of each."""
        now = self.clock()

        def due(db: Connection, when: ColumnElement[bool], most: int) -> list[Wait]:
            rows = (
                select(waits)
                .where(waits.c.state == WaitState.OPEN, when)
                .order_by(waits.c.next_check_at)
                .limit(most)
                .with_for_update(skip_locked=True)
            )
            return [wait_of(row) for row in db.execute(rows).mappings()]

        def write(db: Connection) -> list[Wait]:
            found = due(db, waits.c.next_check_at <= now, limit)
            if len(found) < limit:  # put off by a clock that was ahead; an OR would read all open waits
                found += due(db, waits.c.next_check_at > now + MOST_CHECK_SECONDS, limit - len(found))
            later = [next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at) for wait in found]
            _check_at(db, found, later)
            return found

        return await self.database.write(write, later=True)

    async def lease(
        self, engine: str, owner: str, *, limit: int, seconds: float, grace: float = 0.0, probing: bool = False
    ) -> list[Wait]:
        """Lease answered waits to deliver now, at most one for each target, to `owner` for `seconds`.

        When an engine is probed (`probing`), waits with the fewest failures go first. A wait that has already failed
        may fail for its own reason, and would hide that all others could be delivered.

        A lease of another relay is taken over once it has been expired for `grace` seconds. If this write had to wait,
        that time is at least `seconds`, because renewals had to wait as well. A lease longer than any relay takes was
        set by a clock that was ahead, and counts as expired. Just after a step of the clock no lease is taken over, so
        that live relays renew first. On SQLite none is taken over for `seconds` after the start either, because a step
        just before it is not known.
        """
        now, began = self.clock(), self.steady()
        leasable = _PROBES if probing else _LEASABLE

        def find(db: Connection, valid: Mapping[str, float]) -> list[Wait]:
            line = {"of_engine": engine, "now": now, "most": limit, **valid}
            rows = db.execute(leasable, line | {"crowd": limit * FEW}).mappings().all()
            if 0 < len(rows) < limit:  # these are all, or the scan saw many waits of a few targets
                rows = db.execute(leasable, line | {"crowd": CROWD}).mappings().all()
            return [wait_of(row) for row in rows]

        def write(db: Connection) -> list[Wait]:
            at = self._lease_time(db)
            valid = self._valid_leases(at, seconds, grace)
            db.execute(_BRING_BACK, {"of_engine": engine, "now": now, "far": now + LONGEST_RETRY_SECONDS})
            found = find(db, valid)  # PostgreSQL waits here for a lock on the table; SQLite waited earlier
            if (waited := self.steady() - began) > seconds / 3:
                at = self._lease_time(db)
                valid = self._valid_leases(at, seconds, waited + seconds)
                found = find(db, valid)
            mine = self._lock_targets(db, engine, [wait.route.target_id for wait in found], valid)
            leased = [wait for wait in found if wait.route.target_id in mine]
            held = {"lease_owner": owner, "lease_until": at + seconds}
            _LEASE.run(db, [((wait.task_id, wait.route.digest), held) for wait in leased])
            return leased

        return await self.database.write(write, later=True)

    def _lease_time(self, db: Connection) -> float:
        """Return the epoch seconds of a clock that all relays share.

        A clock that is ahead would see leases as expired.
        """
        now: float = db.execute(_DATABASE_TIME).scalar_one() if self._shares_clock else self.clock()
        return now

    def _valid_leases(self, at: float, seconds: float, grace: float) -> dict[str, float]:
        """Return the times, `run_out` and `too_long`, between which a lease must end to be respected now."""
        normal = {"run_out": at - grace, "too_long": at + max(seconds, LONGEST_LEASE_SECONDS)}
        if (steps := self._lease_steps) is None:
            return normal
        steps.note(at)
        starting = steps.noted_for < seconds
        # The clock of PostgreSQL is not set when a relay starts. That of this machine may have been set just before.
        if steps.quiet_for < seconds or (starting and not self._shares_clock):
            return {"run_out": -math.inf, "too_long": math.inf}
        return normal | {"too_long": math.inf} if starting else normal

    def _lock_targets(self, db: Connection, engine: str, target_ids: list[str], valid: Mapping[str, float]) -> set[str]:
        """Return those of the targets that no other relay leases a wait of at this moment.

        SQLite has one writer, so there it is all of them. On PostgreSQL two relays may reach two waits of one target at
        once, and neither sees the other's lease before it is committed. The relay that has the target's lock continues,
        and checks again for leases.
        """
        if not self.database.is_postgres or not target_ids:
            return set(target_ids)
        locked: list[str] = []
        for target_id in sorted(target_ids):
            mine = select(func.pg_try_advisory_xact_lock(lock_key(f"target {engine} {target_id}")))
            if db.execute(mine).scalar_one():
                locked.append(target_id)
        leased_meanwhile = select(waits.c.target_id).where(
            waits.c.state == WaitState.ANSWERED,
            waits.c.engine == engine,
            _held(),
            waits.c.target_id.in_(locked),
        )
        return set(locked) - set(db.execute(leased_meanwhile, valid).scalars())

    async def next_delivery(self, engine: str) -> float | None:
        """Return when the next answered wait of this engine is due, except leased ones. None: there is none."""
        now = self.clock()
        far = now + LONGEST_RETRY_SECONDS
        which = (waits.c.state == WaitState.ANSWERED, waits.c.engine == engine)
        free = or_(waits.c.lease_until.is_(None), not_(_held()))

        def read(db: Connection) -> float | None:
            at = self._lease_time(db)
            ends = {"run_out": at, "too_long": at + LONGEST_LEASE_SECONDS}
            first = db.execute(select(func.min(waits.c.next_attempt_at)).where(*which, free), ends).scalar()
            ahead = select(func.max(waits.c.next_attempt_at)).where(*which, waits.c.next_attempt_at > far, free)
            return first if db.execute(ahead, ends).scalar() is None else now

        return await self.database.read(read)

    def renew(self, owner: str, held: Collection[tuple[str, str]], *, seconds: float) -> int:
        """Extend these leases (task id, route digest) of a relay, and return how many were extended.

        It may be called from any thread, and blocks until the write is committed. Leases of the owner that are not
        named expire.
        """
        these = and_(waits.c.lease_owner == owner, tuple_(waits.c.task_id, waits.c.route_digest).in_(held))

        def write(db: Connection) -> int:
            return db.execute(update(waits).where(these).values(lease_until=self._lease_time(db) + seconds)).rowcount

        return self.database.write_soon(write).result()

    async def release(self, engine: str, owner: str, *, but: Collection[tuple[str, str]]) -> None:
        """Release all leases of this owner for this engine except these (task id, route digest)."""
        others = and_(
            waits.c.lease_owner == owner,
            waits.c.engine == engine,
            tuple_(waits.c.task_id, waits.c.route_digest).not_in(but),
        )
        let_go = update(waits).where(others).values(**RELEASED)
        await self.database.write(lambda db: db.execute(let_go).rowcount)

    async def delivered(self, wait: Wait, owner: str, *, note: str | None = None) -> bool:
        """Record that the caller has the outcome, or, if there is a note, why it no longer needs it.

        Returns whether `owner` still held the lease.
        """
        delivery = Delivery(wait.task_id, wait.route.digest, owner, wait.delivered_at or self.clock(), kept(note))
        return await self.database.write_each(write_deliveries, delivery, order=wait.task_id, later=True)

    async def start_run(self, wait: Wait, owner: str, runs: StartedRuns) -> bool:
        """Record that a run of the caller is about to start. Returns whether `owner` still holds the lease.

        Without the lease nothing is recorded, and the run must not start.
        """
        start = RunStart(wait.task_id, wait.route.digest, owner, runs)
        return await self.database.write_each(write_run_starts, start, order=wait.task_id, later=True)

    async def retry(self, wait: Wait, owner: str, *, after: float, error: str, not_ready: bool) -> bool:
        """Schedule the next attempt `after` seconds from now, and record since when the target has not been ready."""
        now = self.clock()
        since = (wait.not_ready_since or now) if not_ready else None
        values = {
            "next_attempt_at": now + min(after, LONGEST_RETRY_SECONDS),
            "last_error": kept(error),
            "not_ready_since": since,
        }
        return await self._finish(wait, owner, **values, **RELEASED)

    async def park(self, wait: Wait, owner: str, *, reason: str) -> bool:
        """Park an answered wait, because its delivery is known to be impossible."""
        return await self._finish(wait, owner, state=WaitState.PARKED, last_error=kept(reason), **RELEASED)

    async def park_open(self, wait: Wait, *, reason: str) -> bool:
        """Park an open wait, because its question does not exist. A callback with its answer reopens it."""
        still_open = and_(_this(wait.task_id, wait.route), waits.c.state == WaitState.OPEN)
        parked = update(waits).where(still_open).values(state=WaitState.PARKED, last_error=kept(reason))
        return await self.database.write(lambda db: db.execute(parked).rowcount == 1, order=wait.task_id)

    async def postpone_checks(self, missed: Sequence[Wait], seconds: float) -> None:
        """Schedule another check soon for waits whose check failed."""
        later = self.clock() + seconds

        in_order = sorted(missed, key=lambda wait: wait.task_id)
        times = [later] * len(in_order)
        await self.database.write(
            lambda db: _check_at(db, in_order, times), order=min((wait.task_id for wait in missed), default="")
        )

    async def oldest_open(self) -> float | None:
        """Return when the oldest open wait was registered. None: there is none."""
        oldest = select(func.min(waits.c.created_at)).where(waits.c.state == WaitState.OPEN)
        return await self.database.read(lambda db: db.execute(oldest).scalar())

    async def unanswered(self, task_ids: Sequence[str]) -> list[Wait]:
        """Return the waits on these tasks that have no answer."""
        asked = select(waits).where(waits.c.task_id.in_(task_ids), waits.c.outcome.is_(None))
        return await self.database.read(lambda db: [wait_of(row) for row in db.execute(asked).mappings()])

    async def hasten(self, held_back: Sequence[Wait]) -> None:
        """Make waits due now that were put off because their target was busy."""
        now = self.clock()

        def write(db: Connection) -> None:
            for wait in sorted(held_back, key=lambda wait: wait.task_id):
                put_off = and_(_this(wait.task_id, wait.route), waits.c.state == WaitState.ANSWERED)
                db.execute(update(waits).where(put_off).values(next_attempt_at=now))

        await self.database.write(write, order=min((wait.task_id for wait in held_back), default=""))

    async def redrive(self, *, task_id: str | None = None, engine: str | None = None) -> int:
        """Deliver parked waits once more, and reopen those without an answer. Returns how many waits were redriven."""
        now = self.clock()
        parked = and_(
            waits.c.state == WaitState.PARKED,
            *([waits.c.task_id == task_id] if task_id is not None else []),
            *([waits.c.engine == engine] if engine is not None else []),
        )
        again = {
            "attempts": 0,
            "not_ready_since": None,
            "redriven_at": now,
            "run_position": None,
            "run_starts": 0,
            **RELEASED,
        }
        unanswered, has_answer = and_(parked, waits.c.outcome.is_(None)), and_(parked, waits.c.outcome.is_not(None))

        def write(db: Connection) -> int:
            reopened = update(waits).where(unanswered).values(state=WaitState.OPEN, next_check_at=now, **again)
            sent_again = (
                update(waits)
                .where(has_answer)
                .values(state=WaitState.ANSWERED, answered_at=now, next_attempt_at=now, **again)
            )
            return db.execute(reopened).rowcount + db.execute(sent_again).rowcount

        return await self.database.write(write, order=task_id or "")

    async def forget(self, before: float, *, limit: int = 1000) -> int:
        """Delete waits that were delivered before this time, or parked without an answer and with a deadline before it.

        Deletes at most `limit` waits and returns how many. A wait with an undelivered answer is never deleted.
        """
        delivered = and_(waits.c.state == WaitState.DELIVERED, waits.c.delivered_at < before)
        lapsed = and_(waits.c.state == WaitState.PARKED, waits.c.outcome.is_(None), waits.c.deadline_at < before)
        old = union_all(
            *(select(waits.c.task_id, waits.c.route_digest).where(which) for which in (delivered, lapsed))
        ).limit(limit)
        forgotten = delete(waits).where(tuple_(waits.c.task_id, waits.c.route_digest).in_(old))
        return await self.database.write(lambda db: db.execute(forgotten).rowcount)

    async def remove(self, wait: Wait) -> None:
        """Delete a wait without a trace."""
        this = delete(waits).where(_this(wait.task_id, wait.route))
        await self.database.write(lambda db: db.execute(this).rowcount, order=wait.task_id)

    async def counts(self, *, engine: str | None = None) -> dict[str, int]:
        """Count the waits in each state, for all engines or for one."""
        which = [waits.c.engine == engine] if engine is not None else []
        counted = select(waits.c.state, func.count()).where(*which).group_by(waits.c.state)
        return await self.database.read(lambda db: {row[0]: row[1] for row in db.execute(counted)})

    async def unfinished(self) -> dict[tuple[str, str], int]:
        """Count the undelivered waits by state and engine. Delivered ones make up most of the table."""
        which = waits.c.state.in_([WaitState.OPEN, WaitState.ANSWERED, WaitState.PARKED])
        counted = (
            select(waits.c.state, waits.c.engine, func.count()).where(which).group_by(waits.c.state, waits.c.engine)
        )
        return await self.database.read(lambda db: {(row[0], row[1]): row[2] for row in db.execute(counted)})

    async def oldest_undelivered(self) -> float | None:
        """Return when the longest undelivered answer came. None: there is none."""
        oldest = select(func.min(waits.c.answered_at)).where(waits.c.state == WaitState.ANSWERED)
        return await self.database.read(lambda db: db.execute(oldest).scalar())

    async def find(self, task_id: str) -> list[Wait]:
        """Return all waits on a task."""
        found = select(waits).where(waits.c.task_id == task_id)
        return await self.database.read(lambda db: [wait_of(row) for row in db.execute(found).mappings()])

    async def listed(
        self, *, states: Collection[str] = (), engine: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[Wait]:
        """Return one page of waits, newest first."""
        which = [
            *([waits.c.state.in_(list(states))] if states else []),
            *([waits.c.engine == engine] if engine is not None else []),
        ]
        page = (
            select(waits)
            .where(*which)
            .order_by(waits.c.created_at.desc(), waits.c.task_id, waits.c.route_digest)
            .limit(limit)
            .offset(offset)
        )
        return await self.database.read(lambda db: [wait_of(row) for row in db.execute(page).mappings()])

    async def of_thread(self, engine: str, thread_id: str) -> Wait | None:
        """Return the newest wait whose target is this thread of this engine."""
        part = json.dumps(thread_id)
        newest = (
            select(waits)
            .where(waits.c.engine == engine, waits.c.target_id.contains(f'"thread_id":{part}', autoescape=True))
            .order_by(waits.c.created_at.desc())
            .limit(1)
        )
        found = await self.database.read(lambda db: [wait_of(row) for row in db.execute(newest).mappings()])
        return found[0] if found else None

    async def engines(self) -> Collection[str]:
        """Return the names of the engines of all open and answered waits."""
        unfinished = waits.c.state.in_([WaitState.OPEN, WaitState.ANSWERED])
        named = select(waits.c.engine).where(unfinished).distinct()
        return await self.database.read(lambda db: set(db.execute(named).scalars()))

    async def _finish(self, wait: Wait, owner: str, **values: Any) -> bool:
        finished = {"of_task": wait.task_id, "of_route": wait.route.digest, "of_owner": owner, **values}

        def write(db: Connection) -> bool:
            return db.execute(_FINISH, finished).rowcount == 1

        return await self.database.write(write, order=wait.task_id, later=True)

    def _insert(self, db: Connection, row: Mapping[str, Any]) -> None:
        insert = postgresql.insert if self.database.is_postgres else sqlite.insert
        db.execute(insert(waits).on_conflict_do_nothing(), [dict(row)])


# The statements of every delivery are built once, because building a statement and the cache key of its compiled form
# takes longer than executing it.

_BEFORE_REGISTRATION = (
    waits.c.state,
    waits.c.registered_at,
    waits.c.outcome.is_not(None).label("has_outcome"),
    waits.c.redeliveries,
    waits.c.redelivered_at,
)
_FINISH = update(waits).where(
    waits.c.task_id == bindparam("of_task"),
    waits.c.route_digest == bindparam("of_route"),
    waits.c.lease_owner == bindparam("of_owner"),
)
_DATABASE_TIME = select(cast(extract("epoch", func.clock_timestamp()), Float))
_BRING_BACK = (
    update(waits)
    .where(
        waits.c.state == WaitState.ANSWERED,
        waits.c.engine == bindparam("of_engine"),
        waits.c.next_attempt_at > bindparam("far"),
    )
    .values(next_attempt_at=bindparam("now"))
)
"""Makes waits due now that a clock that was ahead has put off.

This is not an OR in the search, which would then read all waits that are not due.
"""
_LEASE = Update(("lease_owner", "lease_until"), {"attempts": waits.c.attempts + 1})


def _held() -> ColumnElement[bool]:
    return and_(waits.c.lease_until > bindparam("run_out"), waits.c.lease_until <= bindparam("too_long"))


def _leasable(*first: ColumnElement[Any]) -> Select[Any]:
    """Select answered waits of `of_engine` to deliver at `now`, at most one for each target and `most` in total.

    `first` are the columns to sort by before the due time. A target is busy while a lease on it ends between `run_out`
    and `too_long`.
    """
    undelivered = and_(waits.c.state == WaitState.ANSWERED, waits.c.engine == bindparam("of_engine"))
    # Only answered waits are leased. The few leased rows have their own index, which SQLite uses for a range.
    busy = select(waits.c.target_id).where(waits.c.engine == bindparam("of_engine"), waits.c.lease_owner > "", _held())
    in_line = (waits.c.next_attempt_at, waits.c.answered_at)
    due = (
        select(waits.c.task_id, waits.c.route_digest, waits.c.target_id, *in_line)
        .where(undelivered, waits.c.next_attempt_at <= bindparam("now"), waits.c.target_id.not_in(busy))
        .order_by(*first, *in_line)
        .limit(bindparam("crowd"))
        .subquery()
    )
    place = func.row_number().over(partition_by=due.c.target_id, order_by=(due.c.next_attempt_at, due.c.answered_at))
    ranked = select(due.c.task_id, due.c.route_digest, place.label("place")).subquery()
    firsts = select(ranked.c.task_id, ranked.c.route_digest).where(ranked.c.place == 1)
    return (
        select(waits)
        .where(
            tuple_(waits.c.task_id, waits.c.route_digest).in_(firsts),
            # The state is checked again as it is now. `coalesce` keeps SQLite from using it to find the rows.
            func.coalesce(waits.c.state, "") == WaitState.ANSWERED,
            waits.c.engine == bindparam("of_engine"),
        )
        .order_by(*first, *in_line)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
    )


_LEASABLE = _leasable()
_PROBES = _leasable(waits.c.attempts, waits.c.answered_at.desc())


def _check_at(db: Connection, found: Sequence[Wait], times: Sequence[float]) -> None:
    """Schedule the next check of each of these waits, if it is still open, in one statement."""
    if not found:
        return
    planned = (
        update(waits)
        .where(
            waits.c.task_id == bindparam("this_task"),
            waits.c.route_digest == bindparam("this_route"),
            waits.c.state == WaitState.OPEN,
        )
        .values(next_check_at=bindparam("then"))
    )
    rows = [
        {"this_task": wait.task_id, "this_route": wait.route.digest, "then": then}
        for wait, then in zip(found, times, strict=True)
    ]
    db.execute(planned, rows)


def _known_outcome(
    db: Connection, task_id: str, key: str, *, deleted: bool
) -> tuple[dict[str, Any], str] | tuple[None, str]:
    """Return the known outcome of a question, and `found_by` of a wait that receives it now.

    `deleted`: whether an outcome that only says that the task was deleted counts as well.
    """
    known = (
        select(waits.c.outcome, waits.c.found_by)
        .where(_same_question(task_id, key), waits.c.outcome.is_not(None))
        .order_by(waits.c.found_by == MISSING)
        .limit(1)
    )
    found = db.execute(known).first()
    if found is None or (found.found_by == MISSING and not deleted):
        return None, "registration"
    return found.outcome, MISSING if found.found_by == MISSING else "registration"


def _has_room(db: Connection, task_id: str, route: Route) -> bool:
    """Whether the route may wait for this task: it already does, or it has fewer unanswered waits than the maximum."""
    its = select(waits.c.task_id, waits.c.outcome.is_(None)).where(waits.c.route_digest == route.digest)
    unanswered: dict[str, bool] = {row[0]: row[1] for row in db.execute(its)}
    return task_id in unanswered or sum(unanswered.values()) < MAX_OPEN_WAITS


def _found_again(db: Connection, task_id: str, route: Route, now: float) -> None:
    """Reopen waits whose task counted as deleted, because it exists, unless another caller has received that end."""
    db.execute(update(waits).where(waits.c.task_id == task_id, waits.c.state == WaitState.OPEN).values(READABLE))
    ended = and_(
        _same_question(task_id, route.idempotency_key),
        waits.c.found_by == MISSING,
        or_(waits.c.state != WaitState.DELIVERED, waits.c.route_digest == route.digest),
    )
    reopened = {"state": WaitState.OPEN, "outcome": None, "found_by": None, "answered_at": None, "next_check_at": now}
    db.execute(update(waits).where(ended).values(**reopened, **READABLE, **RELEASED))


def _this(task_id: str, route: Route) -> ColumnElement[bool]:
    return and_(waits.c.task_id == task_id, waits.c.route_digest == route.digest)


def _same_question(task_id: str, key: str) -> ColumnElement[bool]:
    return and_(waits.c.task_id == task_id, waits.c.idempotency_key == key)


__all__: Sequence[str] = ["DEFAULT_DATABASE", "Store", "Wait", "WaitState"]
