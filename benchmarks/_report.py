"""Command line, progress lines, tables and checked claims of the benchmarks."""

import argparse
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Claim:
    """A claim about this package, and whether it holds. None: this run cannot check it."""

    text: str
    holds: bool | None
    reason: str = ""
    """Why this run cannot check it."""


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of a repeated measurement."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        return cls(min(figures), statistics.median(figures), max(figures))

    def text(self, digits: int) -> str:
        return " / ".join(f"{figure:.{digits}f}" for figure in (self.minimum, self.median, self.maximum))


def claim_line(claim: Claim) -> str:
    return f"{claim.text}: " + {True: "holds", False: "FAILS", None: f"not checked, {claim.reason}"}[claim.holds]


def argument_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the docstring of the benchmark, with the option that all benchmarks have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser


def progress(side: str, message: str) -> None:
    print(f"{side}: {message}", file=sys.stderr, flush=True)


def formatted(figure: float | None, digits: int) -> str:
    return "-" if figure is None else f"{figure:.{digits}f}"


def columns(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """Format rows as a table: the first column left-aligned, the others right-aligned."""
    first, *others = widths
    return "\n".join(
        row[0].ljust(first) + "".join(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def names_among(choices: Collection[str]) -> Callable[[str], list[str]]:
    """Return the argument type of names that are separated by commas, each of them one of the choices."""

    def names(text: str) -> list[str]:
        given = text.split(",")
        if unknown := [name for name in given if name not in choices]:
            raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}. Choose from {', '.join(choices)}")
        return given

    return names
