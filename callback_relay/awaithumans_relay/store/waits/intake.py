"""What callers and callbacks bring: registrations of waits, and answers.

An answer reaches only rows that wait for the same question: task id and idempotency key must both be the outcome's.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, or_, select, update

from awaithumans_core.errors import TooManyWaitsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.readiness import Readiness
from awaithumans_relay.store.schedule import next_redelivery
from awaithumans_relay.store.table.answers import Answer, write_answers
from awaithumans_relay.store.table.conditions import same_question, this_wait
from awaithumans_relay.store.table.rows import (
    MISSING,
    READABLE,
    RELEASED,
    add_row,
    answered,
    asked_at,
    open_row,
    storable,
)
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState

MAX_OPEN_WAITS = 8
"""Maximum number of unanswered waits of one route. A route is one question, which has one task at a time."""


class Intake:
    """Stores registrations and answers.

    Args:
        database: The database of the waits table.
        clock: Epoch seconds.
        readiness: Notified when something could not be stored.
    """

    def __init__(self, database: Database, clock: Callable[[], float], readiness: Readiness) -> None:
        self._database = database
        self._clock = clock
        self._readiness = readiness

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
        now = self._clock()
        row = open_row(task_id, route, now=now, deadline_at=now + timeout_seconds)

        def write(db: Connection) -> WaitState | None:
            if not _has_room(db, task_id, route):
                return None
            add_row(db, row)
            if not missing:
                _reopen_found(db, task_id, route, now)
            return _register(db, task_id, route, now, missing=missing)

        with self._readiness.storing():
            state = await self._database.write(write, order=task_id)
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
        answer = Answer(outcome.task_id, key, storable(outcome).value(), found_by, self._clock(), route)
        with self._readiness.storing():
            engines = await self._database.write_each(write_answers, answer, order=outcome.task_id)
        if engines:
            self._readiness.stored()
        return engines

    async def open_task(self, route: Route) -> str | None:
        """Return the task of this route's open wait, or of one whose deletion has not been delivered to it yet."""
        undelivered = and_(waits.c.state == WaitState.ANSWERED, waits.c.found_by == MISSING)
        its = and_(waits.c.route_digest == route.digest, waits.c.idempotency_key == route.idempotency_key)
        open_waits = select(waits.c.task_id).where(its, or_(waits.c.state == WaitState.OPEN, undelivered))
        latest = open_waits.order_by(waits.c.created_at.desc()).limit(1)
        return await self._database.read(lambda db: db.execute(latest).scalar())


_BEFORE_REGISTRATION = (
    waits.c.state,
    waits.c.registered_at,
    waits.c.outcome.is_not(None).label("has_outcome"),
    waits.c.redeliveries,
    waits.c.redelivered_at,
)


def _register(db: Connection, task_id: str, route: Route, now: float, *, missing: bool) -> WaitState:
    """Record the registration in the wait's row, which exists, and return the state of the wait."""
    this = this_wait(task_id, route)
    before = db.execute(select(*_BEFORE_REGISTRATION).where(this)).mappings().one()
    state = WaitState(before["state"])
    db.execute(update(waits).where(this).values(registered_at=now, **asked_at(route)))
    outcome, found_by = _known_outcome(db, task_id, route.idempotency_key, deleted=missing)
    if outcome is None:
        if state != WaitState.PARKED:
            return state
        # It was parked too early: a caller does wait.
        db.execute(update(waits).where(this).values(state=WaitState.OPEN, next_check_at=now))
        return WaitState.OPEN
    served = state == WaitState.ANSWERED or (state == WaitState.DELIVERED and before["registered_at"] is None)
    if served or (values := _next_delivery(before, outcome, found_by, now)) is None:
        return state
    db.execute(update(waits).where(this).values(**values))
    return WaitState.ANSWERED


def _next_delivery(before: RowMapping, outcome: dict[str, Any], found_by: str, now: float) -> dict[str, Any] | None:
    """Return the column values that plan the delivery of a known outcome. None: it is delivered no more for now."""
    if not before["has_outcome"]:  # the first delivery
        return answered(outcome, found_by, now)
    again = next_redelivery(now=now, count=before["redeliveries"], last=before["redelivered_at"])
    if again is None:
        return None
    due, count = again
    return answered(outcome, found_by, due) | {"redeliveries": count, "redelivered_at": due}


def _known_outcome(
    db: Connection, task_id: str, key: str, *, deleted: bool
) -> tuple[dict[str, Any], str] | tuple[None, str]:
    """Return the known outcome of a question, and `found_by` of a wait that receives it now.

    `deleted`: whether an outcome that only says that the task was deleted counts as well.
    """
    known = (
        select(waits.c.outcome, waits.c.found_by)
        .where(same_question(task_id, key), waits.c.outcome.is_not(None))
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


def _reopen_found(db: Connection, task_id: str, route: Route, now: float) -> None:
    """Reopen waits whose task counted as deleted, because it exists, unless another caller has received that end."""
    db.execute(update(waits).where(waits.c.task_id == task_id, waits.c.state == WaitState.OPEN).values(READABLE))
    ended = and_(
        same_question(task_id, route.idempotency_key),
        waits.c.found_by == MISSING,
        or_(waits.c.state != WaitState.DELIVERED, waits.c.route_digest == route.digest),
    )
    reopened = {"state": WaitState.OPEN, "outcome": None, "found_by": None, "answered_at": None, "next_check_at": now}
    db.execute(update(waits).where(ended).values(**reopened, **READABLE, **RELEASED))
