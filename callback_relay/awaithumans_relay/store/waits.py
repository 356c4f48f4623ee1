"""What can be done to the waits table: `open -> answered -> delivered`, or `parked`.

Law: what has been acknowledged is stored. Registering, answering (by callback or by sweep) and delivering are three
updates of one row, each committed before anybody is told. Registration and callback may come in either order, any
number of times.

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
from awaithumans_relay.store.database import Database, lock_key
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
"""Of one route. A route is one question, which has one task at a time."""
DEFAULT_DATABASE = "sqlite:///awaithumans-relay.db"
CROWD = 1000
"""So many answered waits are looked at to find one for each target: a target with more does not hide the others."""
FEW = 2
"""So many times what is wanted is looked at first: most targets have one."""


class Store:
    """Waits on SQLite (default) or PostgreSQL, through SQLAlchemy Core.

    Args:
        url: SQLAlchemy URL: `sqlite:///file.db`, or `postgresql://...` for any number of relays.
        clock: Epoch seconds. Default: this machine's, and for leases, which are held against other machines, that of
            PostgreSQL.
        steady: Seconds that only grow, by which steps of the clock are noticed. Default: this machine's; a `clock` that
            is given without it is taken to make no steps.
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
        """Create the table, or bring it up to date. Raises RuntimeError when it is a later release's."""
        await self.database.start()

    async def stop(self) -> None:
        """Close the connections, once the transactions under way have ended."""
        await self.database.stop()

    def _write_probe(self) -> "Future[None]":
        """Begin to write a wait that is deleted in the same transaction."""
        now, this = self.clock(), secrets.token_hex(8)
        route = Route(PROBE_ENGINE, {"readiness": this}, this)
        row = open_row(f"{PROBE_ENGINE}-{this}", route, now=now, deadline_at=now)
        probe = delete(waits).where(_this(row["task_id"], route))

        def write(db: Connection) -> None:
            self._insert(db, row)
            db.execute(probe)

        return self.database.write_soon(write)

    async def register(self, task_id: str, route: Route, timeout_seconds: int, *, missing: bool = False) -> WaitState:
        """An asker waits.

        An answer that is here already is delivered. One that was delivered or parked before is delivered again if the
        same route registers once more, because its caller may have restarted: at once the first time, then with
        growing spacing and only a limited number of times (`next_redelivery`).

        Args:
            task_id: The task.
            route: Where the answer must go.
            timeout_seconds: The task's.
            missing: Whether the caller, which asks again after a failure, did not find its task on the server.
                Otherwise a registration proves that the task is there.

        Raises:
            TooManyWaitsError: the route has `MAX_OPEN_WAITS` waits on other tasks that nobody has answered.
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
            if state == WaitState.PARKED and outcome is None:  # set aside too early: somebody does wait for this task
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
        """A task has ended. Returns the engine of each wait this answered: none when all of them knew already.

        Args:
            outcome: A terminal outcome with its idempotency key.
            found_by: `callback` or `sweep`.
            route: From a callback's URL: waits for the answer even when its registration has not come yet.
        """
        key = outcome.idempotency_key or ""
        answer = Answer(outcome.task_id, key, storable(outcome).value(), found_by, self.clock(), route)
        with self.readiness.storing():
            engines = await self.database.write_each(write_answers, answer, order=outcome.task_id)
        if engines:
            self.readiness.stored()
        return engines

    async def asked(self, route: Route) -> str | None:
        """The task of the wait that this route has open, or whose deletion it has not been given yet."""
        undelivered = and_(waits.c.state == WaitState.ANSWERED, waits.c.found_by == MISSING)
        its = and_(waits.c.route_digest == route.digest, waits.c.idempotency_key == route.idempotency_key)
        open_one = select(waits.c.task_id).where(its, or_(waits.c.state == WaitState.OPEN, undelivered))
        latest = open_one.order_by(waits.c.created_at.desc()).limit(1)
        return await self.database.read(lambda db: db.execute(latest).scalar())

    async def missing(self, task_id: str, rule: Rule = RULE) -> Missing | None:
        """The server answers that it does not know this task. None: no wait on it is open."""
        return await self.database.write(
            lambda db: missing_rows.record_missing(db, task_id, self.clock(), rule), order=task_id
        )

    async def seen(self, seen: Mapping[str, float]) -> None:
        """These tasks were read, each at its time."""
        await self.database.write(lambda db: missing_rows.record_seen(db, seen), order=min(seen, default=""))

    async def review_missing(self, task_id: str, rule: Rule = RULE) -> missing_rows.Review:
        """End the waits on a task that was just read as missing, if that confirms its deletion."""
        return await self.database.write(lambda db: missing_rows.review(db, task_id, self.clock(), rule), order=task_id)

    async def any_missing(self) -> bool:
        """Whether the task of an open wait is missing."""
        return await self.database.read(missing_rows.any_missing)

    async def missing_doubt(self, rule: Rule = RULE) -> Census | None:
        """Why no deletion ends a wait at present: so many tasks are missing. None: nothing is in doubt."""
        return await self.database.read(lambda db: missing_rows.doubt(db, self.clock(), rule))

    async def missing_tasks(self, limit: int) -> tuple[int, list[str]]:
        """How many tasks of open waits are missing, and some of them."""
        return await self.database.read(lambda db: missing_rows.missing_tasks(db, limit))

    async def claim_checks(self, limit: int) -> list[Wait]:
        """Open waits that are due for a look, each put off to its next one."""
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
            if len(found) < limit:  # set by a clock that was ahead; not with OR, which would read all open waits
                found += due(db, waits.c.next_check_at > now + MOST_CHECK_SECONDS, limit - len(found))
            later = [next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at) for wait in found]
            _check_at(db, found, later)
            return found

        return await self.database.write(write, later=True)

    async def lease(
        self, engine: str, owner: str, *, limit: int, seconds: float, grace: float = 0.0, probing: bool = False
    ) -> list[Wait]:
        """Answered waits to deliver now, at most one for each target, held by `owner` for `seconds`.

        To see whether an engine is back (`probing`), those go first that have failed least: what has failed already may
        do so for its own reason, and hide that all others would be taken.

        What another relay holds is taken over once its lease has run out for `grace` seconds; for `seconds` when this
        write had to wait, as renewals then had to. A lease that is longer than any relay's was given by a clock that
        was ahead, and has run out. Just after a step of the clock nothing is taken over: living relays renew first. Nor
        is anything for `seconds` after the start on SQLite, because a step just before it is not known.
        """
        now, began = self.clock(), self.steady()
        leasable = _PROBES if probing else _LEASABLE

        def find(db: Connection, valid: Mapping[str, float]) -> list[Wait]:
            line = {"of_engine": engine, "now": now, "most": limit, **valid}
            rows = db.execute(leasable, line | {"crowd": limit * FEW}).mappings().all()
            if 0 < len(rows) < limit:  # all there are, or first of all many for a few targets
                rows = db.execute(leasable, line | {"crowd": CROWD}).mappings().all()
            return [wait_of(row) for row in rows]

        def write(db: Connection) -> list[Wait]:
            at = self._lease_time(db)
            valid = self._valid_leases(at, seconds, grace)
            db.execute(_BRING_BACK, {"of_engine": engine, "now": now, "far": now + LONGEST_RETRY_SECONDS})
            found = find(db, valid)  # PostgreSQL waits here for whoever holds the table, SQLite did before
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
        """Epoch seconds by a clock that all who lease share: one that is ahead takes what others hold for run out."""
        now: float = db.execute(_DATABASE_TIME).scalar_one() if self._shares_clock else self.clock()
        return now

    def _valid_leases(self, at: float, seconds: float, grace: float) -> dict[str, float]:
        """Between which times, `run_out` and `too_long`, a lease ends that is respected now."""
        normal = {"run_out": at - grace, "too_long": at + max(seconds, LONGEST_LEASE_SECONDS)}
        if (steps := self._lease_steps) is None:
            return normal
        steps.note(at)
        starting = steps.noted_for < seconds
        # The clock of PostgreSQL is not set when a relay starts; that of this machine may have been set just before.
        if steps.quiet_for < seconds or (starting and not self._shares_clock):
            return {"run_out": -math.inf, "too_long": math.inf}
        return normal | {"too_long": math.inf} if starting else normal

    def _lock_targets(self, db: Connection, engine: str, target_ids: list[str], valid: Mapping[str, float]) -> set[str]:
        """Those of the targets that no other relay leases a wait of at this moment.

        SQLite has one writer, so there it is all of them. On PostgreSQL two relays may come to two waits of one target
        at once, neither seeing the other's lease before it is committed: whoever has the target's lock goes on, and
        looks again.
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
        """When the next answered wait of this engine is due, held ones aside. None: there is none."""
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
        """Hold these leases of a relay (task id, route's digest) longer; from any thread, and waits for it.

        Returns how many there are. Those it has and does not name run out.
        """
        these = and_(waits.c.lease_owner == owner, tuple_(waits.c.task_id, waits.c.route_digest).in_(held))

        def write(db: Connection) -> int:
            return db.execute(update(waits).where(these).values(lease_until=self._lease_time(db) + seconds)).rowcount

        return self.database.write_soon(write).result()

    async def release(self, engine: str, owner: str, *, but: Collection[tuple[str, str]]) -> None:
        """Let go of all that is leased for this engine but these (task id, route's digest)."""
        others = and_(
            waits.c.lease_owner == owner,
            waits.c.engine == engine,
            tuple_(waits.c.task_id, waits.c.route_digest).not_in(but),
        )
        let_go = update(waits).where(others).values(**RELEASED)
        await self.database.write(lambda db: db.execute(let_go).rowcount)

    async def delivered(self, wait: Wait, owner: str, *, note: str | None = None) -> bool:
        """The asker has the outcome, or does not want it any more, as the note says."""
        delivery = Delivery(wait.task_id, wait.route.digest, owner, wait.delivered_at or self.clock(), kept(note))
        return await self.database.write_each(write_deliveries, delivery, order=wait.task_id, later=True)

    async def start_run(self, wait: Wait, owner: str, runs: StartedRuns) -> bool:
        """Record that a run of the caller is about to start. Returns whether `owner` still holds the lease.

        Without the lease nothing is recorded, and the run must not start.
        """
        start = RunStart(wait.task_id, wait.route.digest, owner, runs)
        return await self.database.write_each(write_run_starts, start, order=wait.task_id, later=True)

    async def retry(self, wait: Wait, owner: str, *, after: float, error: str, not_ready: bool) -> bool:
        """Try again `after` seconds from now; remember since when the target has been there and not ready."""
        now = self.clock()
        since = (wait.not_ready_since or now) if not_ready else None
        values = {
            "next_attempt_at": now + min(after, LONGEST_RETRY_SECONDS),
            "last_error": kept(error),
            "not_ready_since": since,
        }
        return await self._finish(wait, owner, **values, **RELEASED)

    async def park(self, wait: Wait, owner: str, *, reason: str) -> bool:
        """Set an answered wait aside: delivery is known to be impossible."""
        return await self._finish(wait, owner, state=WaitState.PARKED, last_error=kept(reason), **RELEASED)

    async def park_open(self, wait: Wait, *, reason: str) -> bool:
        """Set an open wait aside: there is no such question. A callback with its answer brings it back."""
        still_open = and_(_this(wait.task_id, wait.route), waits.c.state == WaitState.OPEN)
        parked = update(waits).where(still_open).values(state=WaitState.PARKED, last_error=kept(reason))
        return await self.database.write(lambda db: db.execute(parked).rowcount == 1, order=wait.task_id)

    async def postpone_checks(self, missed: Sequence[Wait], seconds: float) -> None:
        """Look again soon at waits whose look did not come about."""
        later = self.clock() + seconds

        in_order = sorted(missed, key=lambda wait: wait.task_id)
        times = [later] * len(in_order)
        await self.database.write(
            lambda db: _check_at(db, in_order, times), order=min((wait.task_id for wait in missed), default="")
        )

    async def oldest_open(self) -> float | None:
        """When the oldest open wait was registered. None: there is none."""
        oldest = select(func.min(waits.c.created_at)).where(waits.c.state == WaitState.OPEN)
        return await self.database.read(lambda db: db.execute(oldest).scalar())

    async def unanswered(self, task_ids: Sequence[str]) -> list[Wait]:
        """The waits on these tasks that have no answer."""
        asked = select(waits).where(waits.c.task_id.in_(task_ids), waits.c.outcome.is_(None))
        return await self.database.read(lambda db: [wait_of(row) for row in db.execute(asked).mappings()])

    async def hasten(self, held_back: Sequence[Wait]) -> None:
        """Deliver now what was put off because its target was busy."""
        now = self.clock()

        def write(db: Connection) -> None:
            for wait in sorted(held_back, key=lambda wait: wait.task_id):
                put_off = and_(_this(wait.task_id, wait.route), waits.c.state == WaitState.ANSWERED)
                db.execute(update(waits).where(put_off).values(next_attempt_at=now))

        await self.database.write(write, order=min((wait.task_id for wait in held_back), default=""))

    async def redrive(self, *, task_id: str | None = None, engine: str | None = None) -> int:
        """Have parked waits delivered once more; without an answer, looked after once more. Returns how many."""
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

        Some at a time; returns how many it were. A wait with an answer that is not delivered is never deleted.
        """
        delivered = and_(waits.c.state == WaitState.DELIVERED, waits.c.delivered_at < before)
        lapsed = and_(waits.c.state == WaitState.PARKED, waits.c.outcome.is_(None), waits.c.deadline_at < before)
        old = union_all(
            *(select(waits.c.task_id, waits.c.route_digest).where(which) for which in (delivered, lapsed))
        ).limit(limit)
        forgotten = delete(waits).where(tuple_(waits.c.task_id, waits.c.route_digest).in_(old))
        return await self.database.write(lambda db: db.execute(forgotten).rowcount)

    async def remove(self, wait: Wait) -> None:
        """Delete a wait as if it had never been."""
        this = delete(waits).where(_this(wait.task_id, wait.route))
        await self.database.write(lambda db: db.execute(this).rowcount, order=wait.task_id)

    async def counts(self, *, engine: str | None = None) -> dict[str, int]:
        """How many waits there are in each state, for all engines or for one."""
        which = [waits.c.engine == engine] if engine is not None else []
        counted = select(waits.c.state, func.count()).where(*which).group_by(waits.c.state)
        return await self.database.read(lambda db: {row[0]: row[1] for row in db.execute(counted)})

    async def unfinished(self) -> dict[tuple[str, str], int]:
        """How many waits are not delivered, by state and engine. Those that are make up most of the table."""
        which = waits.c.state.in_([WaitState.OPEN, WaitState.ANSWERED, WaitState.PARKED])
        counted = (
            select(waits.c.state, waits.c.engine, func.count()).where(which).group_by(waits.c.state, waits.c.engine)
        )
        return await self.database.read(lambda db: {(row[0], row[1]): row[2] for row in db.execute(counted)})

    async def oldest_undelivered(self) -> float | None:
        """When the answer came that has waited longest for its delivery. None: there is none."""
        oldest = select(func.min(waits.c.answered_at)).where(waits.c.state == WaitState.ANSWERED)
        return await self.database.read(lambda db: db.execute(oldest).scalar())

    async def find(self, task_id: str) -> list[Wait]:
        """All waits on a task."""
        found = select(waits).where(waits.c.task_id == task_id)
        return await self.database.read(lambda db: [wait_of(row) for row in db.execute(found).mappings()])

    async def listed(
        self, *, states: Collection[str] = (), engine: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[Wait]:
        """Waits, the newest first."""
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
        """The newest wait whose target is this thread of this engine."""
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
        """Engines that waits which are not finished name."""
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


# What every delivery takes is written down once: to build a statement, and the key under which its compiled form is
# kept, takes longer than to execute it.

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
"""What a clock that was ahead has put off is due now. Not an OR in the search, which would read all that is not due."""
_LEASE = Update(("lease_owner", "lease_until"), {"attempts": waits.c.attempts + 1})


def _held() -> ColumnElement[bool]:
    return and_(waits.c.lease_until > bindparam("run_out"), waits.c.lease_until <= bindparam("too_long"))


def _leasable(*first: ColumnElement[Any]) -> Select[Any]:
    """Answered waits of `of_engine` to deliver at `now`, at most one for each target and `most` of all, these first.

    A target is busy while a lease of it ends between `run_out` and `too_long`.
    """
    undelivered = and_(waits.c.state == WaitState.ANSWERED, waits.c.engine == bindparam("of_engine"))
    # Only answered waits are leased. The few that are have an index of their own; SQLite takes it for a range.
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
            # As it is by now, which SQLite shall not take for a way to find them.
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
    """Plan the next look at each of these waits, as long as it is open; all in one statement."""
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
    """How the question ended, and `found_by` of a wait that gets it now. `deleted`: that its task was counts, too."""
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
    """Whether the route may wait for this task: it does so already, or has fewer unanswered waits than it may have."""
    its = select(waits.c.task_id, waits.c.outcome.is_(None)).where(waits.c.route_digest == route.digest)
    unanswered: dict[str, bool] = {row[0]: row[1] for row in db.execute(its)}
    return task_id in unanswered or sum(unanswered.values()) < MAX_OPEN_WAITS


def _found_again(db: Connection, task_id: str, route: Route, now: float) -> None:
    """The task is on the server: what counted as deleted is open again, unless another caller was given that end."""
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
