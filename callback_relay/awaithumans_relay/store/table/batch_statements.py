"""Statements on many waits at once, each with its own values.

PostgreSQL receives lists and returns rows. SQLite receives one JSON text and returns one. Its driver releases the GIL
at every row, and while another thread is busy it takes milliseconds to get it back.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Text, bindparam, func, select, tuple_, update

from awaithumans_relay.store.table.schema import waits

_JSON = json.JSONEncoder()
_GIVEN = func.json_each(bindparam("given", type_=Text)).table_valued("value", name="given_rows")


def _given(place: int) -> ColumnElement[Any]:
    return func.json_extract(_GIVEN.c.value, f"$[{place}]")


class Select:
    """Reads columns of the waits with the given keys, and locks the rows in the order of their keys.

    Args:
        key: Columns of the primary key, or the first of them.
        columns: The columns to read.
    """

    def __init__(self, key: Sequence[Column[Any]], columns: Sequence[ColumnElement[Any]]) -> None:
        of = tuple_(*key) if len(key) > 1 else key[0]
        rows = select(*columns).where(of.in_(bindparam("given", expanding=True)))
        self._rows = rows.order_by(waits.c.task_id, waits.c.route_digest).with_for_update()
        keys = select(*map(_given, range(len(key))))
        self._text = select(func.json_group_array(func.json_array(*columns))).where(of.in_(keys))

    def run(self, db: Connection, keys: Sequence[Sequence[str]]) -> Iterable[Sequence[Any]]:
        """Return the rows of the waits with these keys."""
        if db.dialect.name != "sqlite":
            rows = db.execute(self._rows, {"given": [key if len(key) > 1 else key[0] for key in keys]})
            return [tuple(row) for row in rows]
        found: list[list[Any]] = json.loads(db.execute(self._text, {"given": _JSON.encode(keys)}).scalar_one())
        return found


class Update:
    """Sets columns of many waits, each to its own values.

    Args:
        names: The columns with a value for each wait.
        fixed: Columns that have the same value for all waits.
    """

    def __init__(self, names: Iterable[str], fixed: Mapping[str, Any] | None = None) -> None:
        self._names = tuple(names)
        each = {name: bindparam(f"new_{name}", type_=waits.c[name].type) for name in self._names}
        of_each = (waits.c.task_id == bindparam("of_task"), waits.c.route_digest == bindparam("of_route"))
        self._each = update(waits).where(*of_each).values(**each, **(fixed or {}))
        given = {name: _given(place) for place, name in enumerate(self._names, start=2)}
        of_given = (waits.c.task_id == _given(0), waits.c.route_digest == _given(1))
        self._all = update(waits).where(*of_given).values(**given, **(fixed or {}))

    def run(self, db: Connection, rows: Sequence[tuple[tuple[str, str], Mapping[str, Any]]]) -> None:
        """Set the columns of each wait, identified by task id and route digest, to the values given for it."""
        if not rows:
            return
        if db.dialect.name != "sqlite":
            named = [
                {"of_task": task_id, "of_route": route} | {f"new_{name}": values[name] for name in self._names}
                for (task_id, route), values in rows
            ]
            db.execute(self._each, named)
        else:
            listed = [[*key, *(_plain(values[name]) for name in self._names)] for key, values in rows]
            db.execute(self._all, {"given": _JSON.encode(listed)})


def _plain(value: Any) -> Any:
    """Return the value as its column stores it, with objects encoded as JSON."""
    return _JSON.encode(value) if isinstance(value, Mapping) else value
