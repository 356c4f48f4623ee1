"""The rows that a command line names."""

import difflib
from collections.abc import Sequence

from benchmarks.book.rows import Benchmark, Row


class UnknownSelectionError(ValueError):
    """A name selects no row."""


def select(benchmarks: Sequence[Benchmark], names: Sequence[str]) -> list[tuple[Benchmark, list[Row]]]:
    """Return each benchmark with those of its rows that the names select. No names select everything.

    A name is that of a row, or its beginning up to a dot: `relay` selects `relay.signals` and the others.

    Raises:
        UnknownSelectionError: a name selects no row. The text lists the names that do.
    """
    rows = [row.name for benchmark in benchmarks for row in benchmark.rows]
    for name in names:
        if not any(_selects(name, row) for row in rows):
            raise UnknownSelectionError(_unknown(name, rows, benchmarks))
    chosen = [
        (benchmark, [row for row in benchmark.rows if not names or any(_selects(name, row.name) for name in names)])
        for benchmark in benchmarks
    ]
    return [(benchmark, rows) for benchmark, rows in chosen if rows]


def _selects(name: str, row: str) -> bool:
    return row == name or row.startswith(f"{name}.")


def _unknown(name: str, rows: Sequence[str], benchmarks: Sequence[Benchmark]) -> str:
    names = [benchmark.name for benchmark in benchmarks]
    close = difflib.get_close_matches(name, [*names, *rows], n=3)
    near = f"; similar: {', '.join(close)}" if close else ""
    within = [row for row in rows if row.startswith(f"{name.partition('.')[0]}.")]
    known = f"rows: {', '.join(within)}" if within and "." in name else f"benchmarks: {', '.join(names)}"
    return f"no row is named {name!r}{near}\n{known}\nmake bench ARGS=--list lists every row"
