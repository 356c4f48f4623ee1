"""Command line of the benchmark book."""

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks import MODULES
from benchmarks.book.document import QUIET_LOAD, failed, text, write_document
from benchmarks.book.records import Recording, RecordingError, described_run, read
from benchmarks.book.rows import Benchmark
from benchmarks.book.run import INTERRUPTED
from benchmarks.book.runner import Selected, measure_all
from benchmarks.book.selection import UnknownSelectionError, select
from benchmarks.book.verdicts import claim_text

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results" / "performance.jsonl"
"""The lines of the run from which the page in `docs` is made."""

DESCRIPTION = """\
Measure this package on real servers, beside the least that the work can cost and the official SDK and adapters.

Every benchmark declares rows. A row is one metric with several sides, which are measured in the same run. A claim about
a row is checked, and the exit status is 1 if a claim fails or a benchmark could not be measured.

A full run (`make bench`, at most 40 minutes on two quiet cores) measures every row and writes docs/performance.md, its
plots, and the recorded figures (benchmarks/results/performance.jsonl). A run of chosen rows or a quick run writes
nothing, unless --json or --docs name a place. No run leaves a process behind, also if it is interrupted.
"""
EXAMPLES = """\
examples:
  make bench                                               every row, and docs/performance.md
  make bench-quick                                         every row in a small size, three minutes: does it work?
  make bench ARGS=--list                                   the rows and their claims
  make bench ARGS="--only relay.signals --repeats 1"       one row, once
  make bench ARGS="--only relay sweep --json run.jsonl"    two benchmarks, figures kept
  python -m benchmarks --from run.jsonl --docs page        a page from recorded figures, without measuring
"""


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if options.source:
        return _report(options)
    try:
        chosen = select(_benchmarks(), options.only)
    except UnknownSelectionError as unknown:
        parser.error(str(unknown))
    if options.list:
        print("\n\n".join(_described(benchmark) for benchmark, _ in chosen))
        return 0
    selected = [Selected(benchmark, rows) for benchmark, rows in chosen]
    run = described_run(quick=options.quick, complete=not (options.only or options.repeats))
    if run.load > QUIET_LOAD and not run.quick:
        print(f"the machine has other work (load average {run.load}): figures will differ", file=sys.stderr)
    try:
        recording = asyncio.run(
            _until_terminated(measure_all(selected, run, repeats=options.repeats, minutes=options.minutes))
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything that was started has ended", file=sys.stderr)
        return INTERRUPTED
    return _finish(recording, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=f"{EXAMPLES}\nbenchmarks: {', '.join(MODULES).replace('_', '-')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="benchmarks or rows to measure: `relay`, `relay.signals` (default: every row)",
    )
    parser.add_argument("--list", action="store_true", help="list the rows and their claims, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat, three benchmarks at a time")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="repeats of each row (default: per benchmark)")
    parser.add_argument(
        "--minutes", type=_positive, metavar="N", help="time limit of one benchmark (default: per benchmark)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the recorded figures to this file too")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="write the page and its plots into this folder")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="report the figures recorded in this file, and measure nothing",
    )
    return parser


def _positive(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a positive number")
    return int(given)


def _benchmarks() -> list[Benchmark]:
    return [importlib.import_module(f"benchmarks.{name}").BENCHMARK for name in MODULES]


def _described(benchmark: Benchmark) -> str:
    lines = [f"{benchmark.name}: {benchmark.title}"]
    for row in benchmark.rows:
        lines.append(f"  {row.name:<36}{row.title} ({row.unit})")
        lines += [f"  {'':<36}- {claim_text(row, claim)}" for claim in row.claims]
    return "\n".join(lines)


def _report(options: argparse.Namespace) -> int:
    try:
        recording = read(options.source)
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 2
    print(text(recording))
    if options.docs:
        print(f"written: {write_document(recording, options.docs)}")
    return int(failed(recording))


def _finish(recording: Recording, options: argparse.Namespace) -> int:
    print(text(recording))
    publish = recording.run.complete and not recording.run.quick
    files: Sequence[Path] = [file for file in (options.json, RESULTS if publish else None) if file]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(recording.lines())
        print(f"written: {file}")
    folder = options.docs or (DOCS if publish else None)
    if folder:
        print(f"written: {write_document(recording, folder)}")
    return int(failed(recording))


async def _until_terminated(measuring: Coroutine[Any, Any, Recording]) -> Recording:
    """Measure until the end, or until SIGTERM, which ends everything as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measuring


if __name__ == "__main__":
    sys.exit(main())
