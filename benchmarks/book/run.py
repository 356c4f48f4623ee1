"""One run of one benchmark, in a process of its own.

python -m benchmarks.book.run MODULE FOLDER REPEATS SIZE ROW...        (SIZE: full or quick)

A process of its own keeps the settings of one benchmark away from the next one, and can be ended when its time is up.
Figures are appended to a file in FOLDER as they are measured, so that those measured before an end are kept.
"""

import asyncio
import importlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.book.records import rounded
from benchmarks.book.rows import Benchmark, Row

T = TypeVar("T")
FIGURES_FILE = "figures.jsonl"
INTERRUPTED = 130
"""Exit status of a run that was ended by a signal."""


class Run:
    """What a benchmark knows about its run, and where it records its figures."""

    def __init__(self, benchmark: Benchmark, rows: Sequence[str], *, quick: bool, repeats: int, folder: Path) -> None:
        self.quick = quick
        self.folder = folder
        """Folder for the files of the servers. It is removed after the run."""
        self._benchmark = benchmark
        self._rows = frozenset(rows)
        self._repeats = repeats
        self._file = folder / FIGURES_FILE

    def size(self, full: T, quick: T) -> T:
        """Return the size for this run: a number of waits, a length in seconds, a list of parts."""
        return quick if self.quick else full

    def repeats(self) -> Iterator[int]:
        """Yield the number of each repeat."""
        yield from range(self._repeats)

    def wants(self, *rows: Row) -> bool:
        """Return whether one of these rows is selected, so that it must be measured."""
        return any(row.name in self._rows for row in rows)

    def record(self, row: Row, side: str, *figures: float) -> None:
        """Record the figures of a side, each as a repeat. A row that is not selected is ignored."""
        if row not in self._benchmark.rows:
            raise ValueError(f"{self._benchmark.name} does not declare the row {row.name}")
        if not figures or not self.wants(row):
            return
        with self._file.open("a") as file:
            file.write(json.dumps({"row": row.name, "side": side, "values": list(map(rounded, figures))}) + "\n")
        shown = ", ".join(f"{figure:.4g}" for figure in figures[:3]) + (", ..." if len(figures) > 3 else "")
        self.progress(f"{row.title}, {side}: {shown} {row.unit}")

    def progress(self, message: str) -> None:
        """Print a line of progress."""
        print(f"{self._benchmark.name}: {message}", file=sys.stderr, flush=True)


async def _measure(benchmark: Benchmark, run: Run) -> None:
    measuring = asyncio.current_task()
    assert measuring is not None
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, measuring.cancel)
    await benchmark.measure(run)


def main() -> int:
    module, folder, repeats, size, *rows = sys.argv[1:]
    benchmark: Benchmark = importlib.import_module(module).BENCHMARK
    run = Run(benchmark, rows, quick=size == "quick", repeats=int(repeats), folder=Path(folder))
    try:
        asyncio.run(_measure(benchmark, run))
    except asyncio.CancelledError:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
