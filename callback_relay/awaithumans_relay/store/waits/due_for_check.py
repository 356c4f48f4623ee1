"""The waits that the sweep checks: open ones, each on its schedule."""

from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, update

from awaithumans_relay.store.database import Database
from awaithumans_relay.store.schedule import MAX_CHECK_SECONDS, next_check
from awaithumans_relay.store.table.conditions import this_wait
from awaithumans_relay.store.table.rows import Wait, kept, wait_of
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState


class Checks:
    """Claims open waits for a check of their task, and records what the check has shown.

    Args:
        database: The database of the waits table.
        clock: Epoch seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self.clock = clock

    async def claim(self, limit: int) -> list[Wait]:
        """Return open waits that are due for a check, and schedule the next check of each."""
        now = self.clock()

        def due(db: Connection, when: ColumnElement[bool], maximum: int) -> list[Wait]:
            rows = (
                select(waits)
                .where(waits.c.state == WaitState.OPEN, when)
                .order_by(waits.c.next_check_at)
                .limit(maximum)
                .with_for_update(skip_locked=True)
            )
            return [wait_of(row) for row in db.execute(rows).mappings()]

        def write(db: Connection) -> list[Wait]:
            found = due(db, waits.c.next_check_at <= now, limit)
            if len(found) < limit:  # put off by a clock that was ahead; an OR would read all open waits
                found += due(db, waits.c.next_check_at > now + MAX_CHECK_SECONDS, limit - len(found))
            later = [next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at) for wait in found]
            _schedule(db, found, later)
            return found

        return await self._database.write(write, later=True)

    async def postpone(self, missed: Sequence[Wait], seconds: float) -> None:
        """Schedule another check soon for waits whose check failed."""
        in_order = sorted(missed, key=lambda wait: wait.task_id)
        times = [self.clock() + seconds] * len(in_order)
        first = in_order[0].task_id if in_order else ""
        await self._database.write(lambda db: _schedule(db, in_order, times), order=first)

    async def park(self, wait: Wait, *, reason: str) -> bool:
        """Park an open wait, because its question does not exist. A callback with its answer reopens it."""
        still_open = and_(this_wait(wait.task_id, wait.route), waits.c.state == WaitState.OPEN)
        parked = update(waits).where(still_open).values(state=WaitState.PARKED, last_error=kept(reason))
        return await self._database.write(lambda db: db.execute(parked).rowcount == 1, order=wait.task_id)

    async def oldest_open(self) -> float | None:
        """Return when the oldest open wait was registered. None: there is none."""
        oldest = select(func.min(waits.c.created_at)).where(waits.c.state == WaitState.OPEN)
        return await self._database.read(lambda db: db.execute(oldest).scalar())

    async def unanswered(self, task_ids: Sequence[str]) -> list[Wait]:
        """Return the waits on these tasks that have no answer."""
        without_answer = select(waits).where(waits.c.task_id.in_(task_ids), waits.c.outcome.is_(None))
        return await self._database.read(lambda db: [wait_of(row) for row in db.execute(without_answer).mappings()])


def _schedule(db: Connection, found: Sequence[Wait], times: Sequence[float]) -> None:
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
