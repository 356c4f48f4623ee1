"""What the waits table records about tasks that the server does not know.

The rule is in `awaithumans_core.deleted_tasks`.

The count is stored with the wait, so it survives restarts, and several relays add to it. Readings of existing tasks are
recorded only while some task is missing. They show what share of the tasks that are read is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, distinct, func, or_, select, tuple_, update
from sqlalchemy.sql import ColumnElement

from awaithumans_core.deleted_tasks import Census, Missing, Rule
from awaithumans_core.outcome import Outcome
from awaithumans_core.status import NOT_FOUND
from awaithumans_relay.store.table.answers import Answer, write_answers
from awaithumans_relay.store.table.rows import MISSING, READABLE
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState

WITNESSES = 10
"""Number of other open waits whose tasks are read soon after one is found missing.

Their tasks show whether the server still uses the same database.
"""

_OPEN = waits.c.state == WaitState.OPEN
# Written as a range, for which every database uses the index.
_MISSING = waits.c.missing_since > 0


@dataclass(frozen=True, slots=True)
class Review:
    """The result of reviewing a task that was missing often enough."""

    census: Census
    engines: Sequence[str] = ()
    """The engine of each wait that was ended. Empty: the database is in doubt, or the task was read in the meantime."""
    doubted: bool = False


def record_missing(db: Connection, task_id: str, now: float, rule: Rule) -> Missing | None:
    """Count one more 404 for a task, and plan the next check. None: no wait on the task is open."""
    its = and_(waits.c.task_id == task_id, _OPEN)
    rows = db.execute(select(waits.c.missing_since, waits.c.missing_count).where(its).with_for_update()).all()
    if not rows:
        return None
    known = [Missing(since, count) for since, count in rows if since is not None]
    missing = max(known, key=lambda each: each.count).again(now) if known else Missing(now)
    values: dict[str, float] = {"missing_since": missing.since, "missing_count": missing.count}
    if not rule.confirmed(missing, now):  # once confirmed, it is checked on its ordinary schedule
        values["next_check_at"] = now + rule.recheck_seconds
    db.execute(update(waits).where(its).values(values))
    if missing.count == 1:
        _call_witnesses(db, task_id, now)
    return missing


def _call_witnesses(db: Connection, task_id: str, now: float) -> None:
    others = (
        select(waits.c.task_id, waits.c.route_digest)
        .where(_OPEN, waits.c.missing_since.is_(None), waits.c.task_id != task_id, waits.c.next_check_at > now)
        .order_by(waits.c.next_check_at.desc())
        .limit(WITNESSES)
        .with_for_update(skip_locked=True)
    )
    if called := [tuple(row) for row in db.execute(others)]:
        which = tuple_(waits.c.task_id, waits.c.route_digest).in_(called)
        db.execute(update(waits).where(which).values(next_check_at=now))


def record_seen(db: Connection, seen: Mapping[str, float]) -> None:
    """Record that these tasks were read, each at its time."""
    for task_id, at in sorted(seen.items()):
        its = waits.c.task_id == task_id
        db.execute(update(waits).where(its).values(seen_at=at))
        db.execute(update(waits).where(its, _OPEN, waits.c.missing_since <= at).values(READABLE))


def review(db: Connection, task_id: str, now: float, rule: Rule) -> Review:
    """End the waits on a task that was just read as missing, if that confirms its deletion.

    No wait is ended while the database is in doubt.
    """
    its = (waits.c.task_id == task_id, _OPEN, _MISSING)
    columns = (waits.c.idempotency_key, waits.c.missing_since, waits.c.missing_count)
    rows = [
        row
        for row in db.execute(select(*columns).where(*its).with_for_update())
        if rule.confirmed(Missing(*row[1:]), now)
    ]
    if not rows:
        return Review(Census(0, 0))
    census = _census(db, max(since for _, since, _ in rows))
    if rule.doubted(census):
        return Review(census, doubted=True)
    engines: list[str] = []
    for key in sorted({key for key, _, _ in rows}):
        ended = Outcome(task_id=task_id, status=NOT_FOUND, idempotency_key=key).value()
        (answered,) = write_answers(db, [Answer(task_id, key, ended, MISSING, now, None)])
        engines += answered
    return Review(census, engines)


def doubt(db: Connection, now: float, rule: Rule) -> Census | None:
    """Return the census that keeps confirmed deletions from ending any wait. None: nothing is in doubt."""
    confirmed = (_OPEN, _MISSING, waits.c.missing_since <= now - rule.seconds, waits.c.missing_count >= rule.readings)
    since = db.execute(select(func.max(waits.c.missing_since)).where(*confirmed)).scalar()
    census = None if since is None else _census(db, since)
    return census if census is not None and rule.doubted(census) else None


def any_missing(db: Connection) -> bool:
    """Whether the task of an open wait is missing."""
    return db.execute(select(waits.c.task_id).where(_OPEN, _MISSING).limit(1)).first() is not None


def missing_tasks(db: Connection, limit: int) -> tuple[int, list[str]]:
    """Return how many tasks of open waits are missing, and up to `limit` of them, those missing longest first."""
    count = db.execute(select(func.count(distinct(waits.c.task_id))).where(_OPEN, _MISSING)).scalar_one()
    some = select(waits.c.task_id).where(_OPEN, _MISSING).group_by(waits.c.task_id)
    return count, list(db.execute(some.order_by(func.min(waits.c.missing_since)).limit(limit)).scalars())


def _census(db: Connection, since: float) -> Census:
    """Count the tasks read since this moment by their last reading. Those already ended as deleted count as well."""
    ended = and_(waits.c.found_by == MISSING, waits.c.answered_at >= since)
    missing = _count(db, _MISSING, or_(_OPEN, ended))
    return Census(missing, missing + _count(db, waits.c.seen_at >= since, waits.c.missing_since.is_(None)))


def _count(db: Connection, *which: ColumnElement[bool]) -> int:
    return db.execute(select(func.count(distinct(waits.c.task_id))).where(*which)).scalar_one()
