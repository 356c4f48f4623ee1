"""Leases of answered waits, and the results of the deliveries that are made under them.

Law: a delivery is made under a lease, at most one at a time for each target among all relays. A result is recorded only
while its owner still holds the lease.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, not_, or_, select, tuple_, update

from awaithumans_core.runs import StartedRuns
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.database.database import lock_key
from awaithumans_relay.store.schedule import MAX_LEASE_SECONDS, MAX_RETRY_SECONDS
from awaithumans_relay.store.table.answers import Delivery, RunStart, write_deliveries, write_run_starts
from awaithumans_relay.store.table.batch_statements import Update
from awaithumans_relay.store.table.conditions import this_wait
from awaithumans_relay.store.table.rows import RELEASED, Wait, kept
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState
from awaithumans_relay.store.waits.leasable import is_leased, leasable, make_due
from awaithumans_relay.store.waits.lease_clock import LeaseClock


class Leases:
    """Leases waits to a relay, and records what becomes of their deliveries.

    Args:
        database: The database of the waits table.
        lease_clock: The clock of leases.
        clock: Epoch seconds.
        steady: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        database: Database,
        lease_clock: LeaseClock,
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._database = database
        self._lease_clock = lease_clock
        self.clock = clock
        self.steady = steady

    async def acquire(
        self, engine: str, owner: str, *, limit: int, seconds: float, grace: float = 0.0, probing: bool = False
    ) -> list[Wait]:
        """Lease answered waits to deliver now, at most one for each target, to `owner` for `seconds`.

        When an engine is probed (`probing`), waits with the fewest failures go first. A wait that has already failed
        may fail for its own reason, and would hide that all others could be delivered.

        A lease of another relay is taken over once it has been expired for `grace` seconds. If this write had to wait,
        that time is at least `seconds`, because renewals had to wait as well. Which leases are respected after a step
        of the clock is decided by `LeaseClock`.
        """
        now, began = self.clock(), self.steady()

        def write(db: Connection) -> list[Wait]:
            at = self._lease_clock.now(db)
            respected = self._lease_clock.respected(at, seconds, grace)
            make_due(db, engine, now)
            # PostgreSQL waits here for a lock on the table; SQLite waited earlier.
            found = leasable(db, engine, respected, now=now, limit=limit, probing=probing)
            if (waited := self.steady() - began) > seconds / 3:
                at = self._lease_clock.now(db)
                respected = self._lease_clock.respected(at, seconds, waited + seconds)
                found = leasable(db, engine, respected, now=now, limit=limit, probing=probing)
            targets = self._lock_targets(db, engine, [wait.route.target_id for wait in found], respected)
            leased = [wait for wait in found if wait.route.target_id in targets]
            values = {"lease_owner": owner, "lease_until": at + seconds}
            _LEASE.run(db, [((wait.task_id, wait.route.digest), values) for wait in leased])
            return leased

        return await self._database.write(write, later=True)

    def _lock_targets(
        self, db: Connection, engine: str, target_ids: list[str], respected: Mapping[str, float]
    ) -> set[str]:
        """Return those of the targets that no other relay leases a wait of at this moment.

        SQLite has one writer, so there it is all of them. On PostgreSQL two relays may reach two waits of one target at
        once, and neither sees the other's lease before it is committed. The relay that has the target's lock continues,
        and checks again for leases.
        """
        if not self._database.is_postgres or not target_ids:
            return set(target_ids)
        locked: list[str] = []
        for target_id in sorted(target_ids):
            lock = select(func.pg_try_advisory_xact_lock(lock_key(f"target {engine} {target_id}")))
            if db.execute(lock).scalar_one():
                locked.append(target_id)
        leased_meanwhile = select(waits.c.target_id).where(
            waits.c.state == WaitState.ANSWERED,
            waits.c.engine == engine,
            is_leased(),
            waits.c.target_id.in_(locked),
        )
        return set(locked) - set(db.execute(leased_meanwhile, respected).scalars())

    async def next_delivery(self, engine: str) -> float | None:
        """Return when the next answered wait of this engine is due, except leased ones. None: there is none."""
        now = self.clock()
        far = now + MAX_RETRY_SECONDS
        which = (waits.c.state == WaitState.ANSWERED, waits.c.engine == engine)
        free = or_(waits.c.lease_until.is_(None), not_(is_leased()))

        def read(db: Connection) -> float | None:
            at = self._lease_clock.now(db)
            ends = {"run_out": at, "too_long": at + MAX_LEASE_SECONDS}
            first = db.execute(select(func.min(waits.c.next_attempt_at)).where(*which, free), ends).scalar()
            ahead = select(func.max(waits.c.next_attempt_at)).where(*which, waits.c.next_attempt_at > far, free)
            return first if db.execute(ahead, ends).scalar() is None else now

        return await self._database.read(read)

    def renew(self, owner: str, held: Collection[tuple[str, str]], *, seconds: float) -> int:
        """Extend these leases (task id, route digest) of a relay, and return how many were extended.

        It may be called from any thread, and blocks until the write is committed. Leases of the owner that are not
        named expire.
        """
        these = and_(waits.c.lease_owner == owner, tuple_(waits.c.task_id, waits.c.route_digest).in_(held))

        def write(db: Connection) -> int:
            until = self._lease_clock.now(db) + seconds
            return db.execute(update(waits).where(these).values(lease_until=until)).rowcount

        return self._database.write_soon(write).result()

    async def release(self, engine: str, owner: str, *, but: Collection[tuple[str, str]]) -> None:
        """Release all leases of this owner for this engine except these (task id, route digest)."""
        others = and_(
            waits.c.lease_owner == owner,
            waits.c.engine == engine,
            tuple_(waits.c.task_id, waits.c.route_digest).not_in(but),
        )
        released = update(waits).where(others).values(**RELEASED)
        await self._database.write(lambda db: db.execute(released).rowcount)

    async def delivered(self, wait: Wait, owner: str, *, note: str | None = None) -> bool:
        """Record that the caller has the outcome, or, if there is a note, why it no longer needs it.

        Returns whether `owner` still held the lease.
        """
        delivery = Delivery(wait.task_id, wait.route.digest, owner, wait.delivered_at or self.clock(), kept(note))
        return await self._database.write_each(write_deliveries, delivery, order=wait.task_id, later=True)

    async def start_run(self, wait: Wait, owner: str, runs: StartedRuns) -> bool:
        """Record that a run of the caller is about to start. Returns whether `owner` still holds the lease.

        Without the lease nothing is recorded, and the run must not start.
        """
        start = RunStart(wait.task_id, wait.route.digest, owner, runs)
        return await self._database.write_each(write_run_starts, start, order=wait.task_id, later=True)

    async def retry(self, wait: Wait, owner: str, *, after: float, error: str, not_ready: bool) -> bool:
        """Schedule the next attempt `after` seconds from now, and record since when the target has not been ready."""
        now = self.clock()
        since = (wait.not_ready_since or now) if not_ready else None
        values = {
            "next_attempt_at": now + min(after, MAX_RETRY_SECONDS),
            "last_error": kept(error),
            "not_ready_since": since,
        }
        return await self._finish(wait, owner, **values, **RELEASED)

    async def park(self, wait: Wait, owner: str, *, reason: str) -> bool:
        """Park an answered wait, because its delivery is known to be impossible."""
        return await self._finish(wait, owner, state=WaitState.PARKED, last_error=kept(reason), **RELEASED)

    async def hasten(self, held_back: Sequence[Wait]) -> None:
        """Make waits due now that were put off because their target was busy."""
        now = self.clock()

        def write(db: Connection) -> None:
            for wait in sorted(held_back, key=lambda wait: wait.task_id):
                put_off = and_(this_wait(wait.task_id, wait.route), waits.c.state == WaitState.ANSWERED)
                db.execute(update(waits).where(put_off).values(next_attempt_at=now))

        await self._database.write(write, order=min((wait.task_id for wait in held_back), default=""))

    async def _finish(self, wait: Wait, owner: str, **values: Any) -> bool:
        finished = {"of_task": wait.task_id, "of_route": wait.route.digest, "of_owner": owner, **values}

        def write(db: Connection) -> bool:
            return db.execute(_FINISH, finished).rowcount == 1

        return await self._database.write(write, order=wait.task_id, later=True)


# These statements of every delivery are built once, because building a statement and the cache key of its compiled form
# takes longer than executing it.

_FINISH = update(waits).where(
    waits.c.task_id == bindparam("of_task"),
    waits.c.route_digest == bindparam("of_route"),
    waits.c.lease_owner == bindparam("of_owner"),
)
_LEASE = Update(("lease_owner", "lease_until"), {"attempts": waits.c.attempts + 1})
