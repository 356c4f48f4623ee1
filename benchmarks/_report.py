"""What a benchmark says in the end: figures beside each other, and of each claim whether it holds."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What is said of our side, and whether it is so. None: it cannot be said of this run."""

    text: str
    holds: bool | None
    reason: str = ""
    """Why it cannot be said."""


@dataclass(frozen=True)
class Spread:
    """Of a figure that was taken several times."""

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


def progress(side: str, what: str) -> None:
    print(f"{side}: {what}", file=sys.stderr, flush=True)


def formatted(figure: float | None, digits: int) -> str:
    return "-" if figure is None else f"{figure:.{digits}f}"


def columns(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """The first column to the left, the others to the right."""
    first, *others = widths
    return "\n".join(
        row[0].ljust(first) + "".join(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
