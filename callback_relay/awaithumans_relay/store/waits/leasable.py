"""The query for the answered waits that may be leased now.

The statements are built once, because building a statement and the cache key of its compiled form takes longer than
executing it.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, select, tuple_, update

from awaithumans_relay.store.schedule import MAX_RETRY_SECONDS
from awaithumans_relay.store.table.rows import Wait, wait_of
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState

MAX_SCANNED = 1000
"""Maximum number of answered waits to scan for one per target, so that a target with many does not hide the others."""
FIRST_SCAN = 2
"""The first scan covers this many times the wanted number of waits, because most targets have one wait."""


def leasable(
    db: Connection, engine: str, respected: Mapping[str, float], *, now: float, limit: int, probing: bool
) -> list[Wait]:
    """Return answered waits of an engine to deliver now, at most one for each target, and lock their rows.

    Args:
        db: The transaction that leases them.
        engine: The name of the engine.
        respected: `run_out` and `too_long`, between which a lease must end to keep its target busy.
        now: Epoch seconds.
        limit: Maximum number of waits.
        probing: Whether the waits with the fewest failures go first.
    """
    statement = _PROBES if probing else _LEASABLE
    values = {"of_engine": engine, "now": now, "maximum": limit, **respected}
    rows = db.execute(statement, values | {"scanned": limit * FIRST_SCAN}).mappings().all()
    if 0 < len(rows) < limit:  # these are all, or the scan saw many waits of a few targets
        rows = db.execute(statement, values | {"scanned": MAX_SCANNED}).mappings().all()
    return [wait_of(row) for row in rows]


def make_due(db: Connection, engine: str, now: float) -> None:
    """Make waits due now that a clock that was ahead has put off."""
    db.execute(_MAKE_DUE, {"of_engine": engine, "now": now, "far": now + MAX_RETRY_SECONDS})


def is_leased() -> ColumnElement[bool]:
    """Select waits whose lease is respected: it ends between `run_out` and `too_long`."""
    return and_(waits.c.lease_until > bindparam("run_out"), waits.c.lease_until <= bindparam("too_long"))


_MAKE_DUE = (
    update(waits)
    .where(
        waits.c.state == WaitState.ANSWERED,
        waits.c.engine == bindparam("of_engine"),
        waits.c.next_attempt_at > bindparam("far"),
    )
    .values(next_attempt_at=bindparam("now"))
)
"""This is not an OR in the search, which would then read all waits that are not due."""


def _leasable(*first: ColumnElement[Any]) -> Select[Any]:
    """Select answered waits of `of_engine` to deliver at `now`, at most one for each target and `maximum` in total.

    `first` are the columns to sort by before the due time. A target is busy while one of its waits is leased.
    """
    undelivered = and_(waits.c.state == WaitState.ANSWERED, waits.c.engine == bindparam("of_engine"))
    # Only answered waits are leased. The few leased rows have their own index, which SQLite uses for a range.
    busy = select(waits.c.target_id).where(
        waits.c.engine == bindparam("of_engine"), waits.c.lease_owner > "", is_leased()
    )
    in_line = (waits.c.next_attempt_at, waits.c.answered_at)
    due = (
        select(waits.c.task_id, waits.c.route_digest, waits.c.target_id, *in_line)
        .where(undelivered, waits.c.next_attempt_at <= bindparam("now"), waits.c.target_id.not_in(busy))
        .order_by(*first, *in_line)
        .limit(bindparam("scanned"))
        .subquery()
    )
    rank = func.row_number().over(partition_by=due.c.target_id, order_by=(due.c.next_attempt_at, due.c.answered_at))
    ranked = select(due.c.task_id, due.c.route_digest, rank.label("rank")).subquery()
    firsts = select(ranked.c.task_id, ranked.c.route_digest).where(ranked.c.rank == 1)
    return (
        select(waits)
        .where(
            tuple_(waits.c.task_id, waits.c.route_digest).in_(firsts),
            # The state is checked again as it is now. `coalesce` keeps SQLite from using it to find the rows.
            func.coalesce(waits.c.state, "") == WaitState.ANSWERED,
            waits.c.engine == bindparam("of_engine"),
        )
        .order_by(*first, *in_line)
        .limit(bindparam("maximum"))
        .with_for_update(skip_locked=True)
    )


_LEASABLE = _leasable()
_PROBES = _leasable(waits.c.attempts, waits.c.answered_at.desc())
