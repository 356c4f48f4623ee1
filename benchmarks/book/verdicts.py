"""Spreads, ratios and margins of a measured row, and whether its claims hold."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.book.rows import Claim, Row, Statistic

Values = Mapping[str, Sequence[float]]
"""Figures of a row by side, one for each repeat."""


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of repeated figures."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        return cls(min(figures), statistics.median(figures), max(figures))

    def of_kind(self, statistic: Statistic) -> float:
        return {"minimum": self.minimum, "median": self.median, "maximum": self.maximum}[statistic]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds in one run."""

    claim: Claim
    measured: float | None
    """Statistic that was compared. None if the run has no figures of a side of the claim."""
    met: int = 0
    """Repeats in which the claim holds on its own."""
    repeats: int = 0

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds, or None if it was not measured."""
        return None if self.measured is None else within(self.claim, self.measured)

    @property
    def reaches_goal(self) -> bool | None:
        """Whether the goal is reached, or None if there is no goal or no figure."""
        if self.measured is None or self.claim.goal is None:
            return None
        return _within(self.claim, self.claim.goal, self.measured)

    @property
    def margin(self) -> float | None:
        """Distance to the claimed value as a share of it. It is negative if the claim does not hold."""
        if self.measured is None or not self.claim.value:
            return None
        distance = (self.measured - self.claim.value) / self.claim.value
        return distance if self.claim.bound == "at least" else 0.0 - distance


def within(claim: Claim, figure: float) -> bool:
    return _within(claim, claim.value, figure)


def _within(claim: Claim, limit: float, figure: float) -> bool:
    return figure >= limit if claim.bound == "at least" else figure <= limit


def ratios(values: Values, side: str, to: str) -> list[float]:
    """Divide the figures of a side by those of another one.

    Figures of the same repeat are divided, since other load of the machine concerns both. If the sides have different
    numbers of figures, the medians are divided. Nothing is divided by zero: the list is empty then.
    """
    figures, others = values.get(side, ()), values.get(to, ())
    if not figures or not others:
        return []
    if len(figures) != len(others):
        figures, others = [statistics.median(figures)], [statistics.median(others)]
    return [figure / other for figure, other in zip(figures, others, strict=True) if other]


def verdict(claim: Claim, values: Values) -> Verdict:
    compared = list(values.get(claim.side, ())) if claim.to is None else ratios(values, claim.side, claim.to)
    if not compared:
        return Verdict(claim, None)
    measured = Spread.of(compared).of_kind(claim.of)
    return Verdict(claim, measured, sum(within(claim, figure) for figure in compared), len(compared))


def verdicts(row: Row, values: Values) -> list[Verdict]:
    return [verdict(claim, values) for claim in row.claims]


def claim_text(row: Row, claim: Claim) -> str:
    """Return a claim as text, such as `relay: at least 0.4 times bare (median)`."""
    if claim.to is None:
        value = f"{claim.bound} {exact(claim.value)} {row.unit}"
    else:
        value = f"{claim.bound} {exact(claim.value)} times {claim.to}"
    return f"{claim.side}: {value} ({claim.of})"


def exact(value: float) -> str:
    """Return a claimed value with all its digits."""
    return f"{value:,.12g}"


def number(figure: float) -> str:
    """Return a measured figure with three significant digits, or all digits of its integer part."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{float(f'{figure:.3g}'):g}"
