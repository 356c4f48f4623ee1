"""The waits that the sweep checks: open ones, each on its schedule."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, select, update

from awaithumans_core.schedule import JITTER, MAX_CHECK_SECONDS, YOUNG_SECONDS, first_to_check, interval, next_check
from awaithumans_core.schedule.times import PROMISED_MAX_SECONDS
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.table.conditions import this_wait
from awaithumans_relay.store.table.rows import Wait, kept, wait_of
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.table.sweep_budget import settle
from awaithumans_relay.store.wait_state import WaitState
from awaithumans_relay.store.waits.lease_clock import LeaseClock

_OPEN = waits.c.state == WaitState.OPEN


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An open wait below another one in the order of their ages."""

    task_id: str
    route_digest: str
    created_at: float
    deadline_at: float
    next_check_at: float
    missing: bool
    """Whether its task was missing at the last read."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The waits whose check is so late that the promise may not be kept."""

    waits: int = 0
    seconds: float = 0.0
    """By how much the latest of them exceeds the promise."""


class Checks:
    """Claims open waits for a check of their task, and records what the check has shown.

    Args:
        database: The database of the waits table.
        clock: Epoch seconds.
        shared_clock: The clock by which all relays count their budget. Default: `clock`.
    """

    def __init__(self, database: Database, clock: Callable[[], float], shared_clock: LeaseClock | None = None) -> None:
        self._database = database
        self.clock = clock
        self._shared_clock = shared_clock or LeaseClock(clock, None, of_database=False)

    async def claim(self, limit: int) -> list[Wait]:
        """Return open waits that are due for a check, and schedule the next check of each.

        Young waits come first, but a quarter of the limit is for the most overdue ones.
        """
        now = self.clock()

        def due(
            db: Connection, when: ColumnElement[bool], maximum: int, by: ColumnElement[float] = waits.c.next_check_at
        ) -> list[Wait]:
            rows = select(waits).where(_OPEN, when).order_by(by).limit(maximum).with_for_update(skip_locked=True)
            return [wait_of(row) for row in db.execute(rows).mappings()]

        def write(db: Connection) -> list[Wait]:
            is_due = waits.c.next_check_at <= now
            # A sum has no index, so few young waits are read by their ages, and not all overdue ones.
            check_at = waits.c.next_check_at + 0.0
            young = due(db, and_(check_at <= now, waits.c.created_at > now - YOUNG_SECONDS), limit, check_at)
            overdue = due(db, is_due, limit)
            found = first_to_check(young, _others(overdue, young), limit)
            if len(found) < limit:  # put off by a clock that was ahead; an OR would read all open waits
                found += due(db, waits.c.next_check_at > now + MAX_CHECK_SECONDS, limit - len(found))
            later = [next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at) for wait in found]
            _schedule(db, found, later)
            return found

        return await self._database.write(write, later=True)

    async def settle(self, share: float, spent: float) -> float:
        """Deduct seconds of request time from the budget that all relays share, and return what is left."""
        return await self._database.write(
            lambda db: settle(db, share, spent, self._shared_clock.now(db)), order="", later=True
        )

    async def next_due(self) -> float | None:
        """Return when the next check is due. None: no wait is open."""
        times = select(func.min(waits.c.next_check_at), func.max(waits.c.next_check_at)).where(_OPEN)

        def read(db: Connection) -> float | None:
            soonest, latest = db.execute(times).one()
            if soonest is None:
                return None
            now = self.clock()
            return now if latest > now + MAX_CHECK_SECONDS else float(soonest)

        return await self._database.read(read)

    async def standing(self, created_at: float, limit: int) -> tuple[int, list[Neighbour]]:
        """Return how many open waits are younger, and the open waits from this age downward, youngest first."""
        younger = select(func.count()).select_from(waits).where(_OPEN, waits.c.created_at > created_at)
        columns = (
            waits.c.task_id,
            waits.c.route_digest,
            waits.c.created_at,
            waits.c.deadline_at,
            waits.c.next_check_at,
            waits.c.missing_since.is_not(None),
        )
        below = (
            select(*columns)
            .where(_OPEN, waits.c.created_at <= created_at)
            .order_by(waits.c.created_at.desc())
            .limit(limit)
        )

        def read(db: Connection) -> tuple[int, list[Neighbour]]:
            return db.execute(younger).scalar_one(), [Neighbour(*row) for row in db.execute(below)]

        return await self._database.read(read)

    async def postpone(self, missed: Sequence[Wait], seconds: float) -> None:
        """Schedule another check soon for waits whose check failed."""
        in_order = sorted(missed, key=lambda wait: wait.task_id)
        times = [self.clock() + seconds] * len(in_order)
        first = in_order[0].task_id if in_order else ""
        await self._database.write(lambda db: _schedule(db, in_order, times), order=first)

    async def checked(self, seen: Sequence[Wait | Neighbour]) -> None:
        """Schedule the next checks of waits that were checked by a list.

        They share their jitter, so that they come due together.
        """
        now, share = self.clock(), 1 - random.uniform(0, JITTER)  # noqa: S311 - spreads load, guards nothing
        planned = list[tuple[Wait | Neighbour, float]]()
        for wait in seen:
            due = next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at)
            planned.append((wait, min(due, now + interval(now - wait.created_at) * share)))
        planned.sort(key=lambda each: each[0].task_id)
        in_order, times = [wait for wait, _ in planned], [due for _, due in planned]
        if in_order:
            first = in_order[0].task_id
            await self._database.write(lambda db: _schedule(db, in_order, times), order=first, later=True)

    async def shortfall(self) -> Shortfall:
        """Return how many open waits are checked later than promised, and by how much."""
        now = self.clock()
        age = now - waits.c.created_at
        # The schedule leaves a part of the promised time unused: a tenth, and six minutes at the maximum.
        slack = case(
            (age >= PROMISED_MAX_SECONDS * 20, PROMISED_MAX_SECONDS - MAX_CHECK_SECONDS), else_=1.0 + 0.005 * age
        )
        over = now - waits.c.next_check_at - slack
        late = select(func.count(), func.max(over)).where(_OPEN, waits.c.next_check_at < now - 1.0, over > 0)

        def read(db: Connection) -> Shortfall:
            count, seconds = db.execute(late).one()
            return Shortfall(count, float(seconds or 0.0))

        return await self._database.read(read)

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


def _others(overdue: Sequence[Wait], young: Sequence[Wait]) -> list[Wait]:
    """Return the overdue waits that are not among the young ones."""
    known = {(wait.task_id, wait.route.digest) for wait in young}
    return [wait for wait in overdue if (wait.task_id, wait.route.digest) not in known]


def _schedule(db: Connection, found: Sequence[Wait | Neighbour], times: Sequence[float]) -> None:
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
        {
            "this_task": wait.task_id,
            "this_route": wait.route_digest if isinstance(wait, Neighbour) else wait.route.digest,
            "then": then,
        }
        for wait, then in zip(found, times, strict=True)
    ]
    db.execute(planned, rows)
