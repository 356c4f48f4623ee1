"""The budget of the sweep's requests, which all relays of a database share: one row."""

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from awaithumans_core.schedule import Budget
from awaithumans_relay.store.table.schema import sweep_budget

_ROW = 1
_ADD = {
    "sqlite": sqlite.insert(sweep_budget).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(sweep_budget).on_conflict_do_nothing(),
}


def settle(db: Connection, share: float, spent: float, now: float) -> float:
    """Deduct what a relay has spent since it last did this, and return what is left for all of them.

    Args:
        db: In a write transaction.
        share: The share of the wall time that all relays together may use.
        spent: Seconds of request time.
        now: Epoch seconds of the clock that all relays share.
    """
    its = sweep_budget.c.id == _ROW
    query = select(sweep_budget).where(its).with_for_update()
    if (found := db.execute(query).mappings().first()) is None:
        full = Budget.full(now, share)
        db.execute(_ADD[db.dialect.name], [{"id": _ROW, "left_seconds": full.left, "counted_at": full.at}])
        found = db.execute(query).mappings().one()  # another relay may have added it
    budget = Budget(share, found["left_seconds"], found["counted_at"])
    budget.refill(now)
    budget.spend(spent)
    db.execute(update(sweep_budget).where(its).values(left_seconds=budget.left, counted_at=budget.at))
    return budget.left
