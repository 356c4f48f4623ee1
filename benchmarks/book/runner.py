"""Measures benchmarks, each in a process of its own with a time limit, and collects what they record.

A benchmark that fails or exceeds its limit does not stop the others. Its rows are reported with the figures that it
recorded before. When a benchmark is ended, its process first ends the servers that it has started. If it cannot,
because it was killed, its guard ends them (`awaithumans_relay.dev.guard`).
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devservers import guard_group, release_group

from benchmarks.book.records import BenchmarkRecord, Chapter, Recording, RowRecord, RunRecord, load
from benchmarks.book.rows import Benchmark, Row
from benchmarks.book.run import FIGURES_FILE, INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
ENDING_SECONDS = 45.0
"""Time for a benchmark to stop its servers after SIGTERM."""
QUICK_MINUTES = 8.0
"""Limit of a benchmark in a quick run. Each takes about a minute on a quiet machine."""
QUICK_AT_ONCE = 3
"""Benchmarks of a quick run that run at the same time. Its figures are no measurement, so they may be disturbed."""


@dataclass(frozen=True)
class Selected:
    """A benchmark and the rows of it that are selected."""

    benchmark: Benchmark
    rows: Sequence[Row]


async def measure_all(
    selected: Sequence[Selected], run: RunRecord, *, repeats: int | None, minutes: float | None
) -> Recording:
    """Measure one benchmark after the other, or several at a time in a quick run."""
    gate = asyncio.Semaphore(QUICK_AT_ONCE if run.quick else 1)

    async def one(each: Selected) -> Chapter:
        async with gate:
            return await _measure(each, quick=run.quick, repeats=repeats, minutes=minutes)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in selected]
    return Recording(run, [task.result() for task in tasks])


async def _measure(each: Selected, *, quick: bool, repeats: int | None, minutes: float | None) -> Chapter:
    benchmark = each.benchmark
    count = repeats or (1 if quick else benchmark.repeats)
    limit = 60 * (minutes or (QUICK_MINUTES if quick else benchmark.minutes))
    folder = Path(tempfile.mkdtemp(prefix=f"benchmark-{benchmark.name}-"))
    began, load_before = time.monotonic(), load()
    try:
        error = await _run(each, folder, count, "quick" if quick else "full", limit)
        values = _figures(folder / FIGURES_FILE)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    record = BenchmarkRecord(
        name=benchmark.name,
        title=benchmark.title,
        description=benchmark.description or "",
        seconds=round(time.monotonic() - began, 1),
        load=load_before,
        error=error,
    )
    return Chapter(record, [RowRecord.of(row, values.get(row.name, {})) for row in each.rows])


async def _run(each: Selected, folder: Path, repeats: int, size: str, limit: float) -> str | None:
    """Run the benchmark in a process of its own. Return why it ended early, or None."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.book.run", each.benchmark.module, str(folder), str(repeats), size),
        *(row.name for row in each.rows),
        stdin=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C reaches the runner only, which ends the process with SIGTERM
    )
    guard_group(process.pid)
    try:
        async with asyncio.timeout(limit):
            status = await process.wait()
    except TimeoutError:
        print(f"{each.benchmark.name}: ended after its limit of {limit:.0f} s", file=sys.stderr, flush=True)
        return "time limit"
    finally:
        await _end(process)
        release_group(process.pid)
    if status == 0:
        return None
    return "interrupted" if status in (INTERRUPTED, -signal.SIGTERM) else f"exit status {status}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process with SIGTERM and, if that takes too long or is interrupted, with SIGKILL."""
    try:
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDING_SECONDS):
                    await process.wait()
    finally:
        with suppress(ProcessLookupError):  # also what the process has left running in its session
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _figures(file: Path) -> dict[str, dict[str, list[float]]]:
    """Return the recorded figures by row and side."""
    values: dict[str, dict[str, list[float]]] = {}
    if file.exists():
        for line in file.read_text().splitlines():
            with suppress(ValueError):  # the last line of a killed process may be incomplete
                recorded = json.loads(line)
                values.setdefault(recorded["row"], {}).setdefault(recorded["side"], []).extend(recorded["values"])
    return values
