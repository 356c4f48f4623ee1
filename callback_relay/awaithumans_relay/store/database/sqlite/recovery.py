"""Copies all rows of one SQLite database into another, to rescue a file that was deleted while it was open.

A row that exists on both sides stays as it is, unless the carried wait has made more progress. It has when it has an
answer, is delivered, or has started more runs, and the other has not. A wait that was registered again or redriven
since then is not set back. Carrying the same rows twice, or rows that another relay has carried, changes nothing.
"""

from sqlalchemy import Connection, Table, and_, func, or_, select
from sqlalchemy.dialects import sqlite

from awaithumans_relay.store.table.schema import metadata, schema_version, waits
from awaithumans_relay.store.wait_state import WaitState

CHUNK = 500
"""Number of rows in one statement."""


def carry(old: Connection, new: Connection) -> int:
    """Add all rows of the old database to the new one, in the transaction of `new`. Returns how many were read."""
    carried = 0
    for table in metadata.sorted_tables:
        if table is not schema_version:
            carried += _carry_table(table, old, new)
    return carried


def _carry_table(table: Table, old: Connection, new: Connection) -> int:
    carried = 0
    insert = sqlite.insert(table)
    if table is waits:
        carries = insert.excluded
        delivered, more_runs = carries.state == WaitState.DELIVERED, carries.run_starts > waits.c.run_starts
        further = or_(
            and_(waits.c.outcome.is_(None), carries.outcome.is_not(None)),
            and_(
                waits.c.state != WaitState.DELIVERED,
                or_(delivered, more_runs),
                *(
                    func.coalesce(carries[name], 0) >= func.coalesce(waits.c[name], 0)
                    for name in ("registered_at", "redriven_at")
                ),
            ),
        )
        values = {column.name: insert.excluded[column.name] for column in waits.columns if not column.primary_key}
        insert = insert.on_conflict_do_update(index_elements=waits.primary_key.columns, set_=values, where=further)
    else:
        insert = insert.on_conflict_do_nothing()
    for rows in old.execute(select(table)).mappings().partitions(CHUNK):
        new.execute(insert, [dict(row) for row in rows])
        carried += len(rows)
    return carried
