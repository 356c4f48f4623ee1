"""What a benchmark measures and what is claimed about it.

A row is one metric. Its sides are measured in the same run: this package, a reference (the least that the work can
cost), and often the official SDK or adapter. A claim is about one side, either about its figure or about the ratio to
another side, because ratios depend less on the machine. The claimed value is the one that holds in nine of ten runs on
a quiet machine. The goal is the value that this package aims at.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.book.run import Run

Bound = Literal["at least", "at most"]
Statistic = Literal["median", "minimum", "maximum"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A bound of one side of a row."""

    side: str
    bound: Bound
    value: float
    goal: float | None = None
    """Value that this package aims at, if it is stricter than the claim."""
    to: str | None = None
    """Side whose figure of the same repeat divides the figure. Without it, the figure itself is compared."""
    of: Statistic = "median"
    """Statistic of the repeats that is compared. A single repeat varies by a quarter and more."""

    @property
    def excludes(self) -> bool:
        """Whether the claim is that something never happens, which also a small run must show."""
        return self.bound == "at most" and self.value == 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of a benchmark."""

    name: str
    """Name for `--only` and for the file of the plot, such as `relay.signals`. It starts with the benchmark's name."""
    title: str
    unit: str
    what: str = ""
    """What the figures mean, if the title does not say it all."""
    reference: str | None = None
    """Side to which the report compares the others."""
    claims: Sequence[Claim] = ()


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Rows that are measured together."""

    name: str
    title: str
    description: str | None
    """How it is measured, as Markdown. Modules pass their docstring."""
    rows: Sequence[Row]
    measure: "Callable[[Run], Awaitable[None]]"
    repeats: int = 1
    """Repeats of a full run."""
    minutes: float = 10.0
    """Limit of a full run. What is recorded until then is reported."""

    @property
    def module(self) -> str:
        """Module that declares this benchmark as `BENCHMARK`."""
        return f"benchmarks.{self.name.replace('-', '_')}"
