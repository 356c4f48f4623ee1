"""The plot of a row: a bar for the median of each side, a dot for each repeat, a line for each claim.

Equal figures give equal bytes, so that a report changes only where the figures do.
"""

import io
from collections.abc import Sequence

from benchmarks.book.records import RowRecord
from benchmarks.book.rows import Claim
from benchmarks.book.verdicts import Spread, number

OURS, REFERENCE, OTHER, LIMIT = "#2563a8", "#6b7280", "#b6bcc6", "#b42318"
SETTINGS = {
    "font.family": "DejaVu Sans",  # part of matplotlib, so the layout is the same on every machine
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "awaithumans-workflows",
}
MAX_DOTS = 40
"""More dots than this hide each other. Then every n-th of the sorted figures is drawn, and the last one."""


def plot(record: RowRecord) -> str | None:
    """Return the plot as SVG, or None if the row has no figures."""
    if not any(record.values.values()):
        return None
    from matplotlib import style  # imported here, because a report on a terminal does not need it
    from matplotlib.figure import Figure

    sides = [side for side, figures in record.values.items() if figures]
    with style.context(["default", SETTINGS]):  # not the settings of the person who runs it
        figure = Figure(figsize=(7.2, 0.7 + 0.34 * len(sides)))
        axes = figure.add_subplot()
        for place, side in enumerate(sides):
            median = Spread.of(record.values[side]).median
            axes.barh(place, median, height=0.62, color=_color(record, side))
            drawn = _dots(record.values[side])
            axes.plot(drawn, [place] * len(drawn), "o", markersize=3, color="#111827", alpha=0.55)
            axes.annotate(
                number(median),
                (max(*drawn, median), place),
                xytext=(6, 0),
                textcoords="offset points",
                verticalalignment="center",
            )
            for limit in _limits(record, side):
                axes.plot([limit, limit], [place - 0.42, place + 0.42], color=LIMIT, linewidth=1.6)
        axes.set_yticks(range(len(sides)), sides)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(record.unit)
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        output = io.StringIO()
        figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())


def _color(record: RowRecord, side: str) -> str:
    if side == record.reference:
        return REFERENCE
    return OURS if side in {claim.side for claim in record.claims} or not record.claims else OTHER


def _dots(figures: Sequence[float]) -> list[float]:
    found, step = sorted(figures), -(-len(figures) // MAX_DOTS)
    return [*found[:-1:step], found[-1]]


def _limits(record: RowRecord, side: str) -> list[float]:
    """Return the claimed values of a side, in the unit of the row."""
    limits = (_limit(record, claim) for claim in record.claims if claim.side == side)
    return [limit for limit in limits if limit is not None]


def _limit(record: RowRecord, claim: Claim) -> float | None:
    if claim.to is None:
        return claim.value
    reference = record.values.get(claim.to)
    return claim.value * Spread.of(reference).median if reference else None
