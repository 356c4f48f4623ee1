"""The report of a recorded run: Markdown for `docs/performance.md`, and plain text for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.book.plots import plot
from benchmarks.book.records import BenchmarkRecord, Chapter, Recording, RowRecord, RunRecord
from benchmarks.book.verdicts import Spread, Verdict, claim_text, exact, number, ratios, verdicts

NAME = "performance"
QUIET_LOAD = 0.5
"""Load average above which the machine had other work when the run began."""
SHOWN_VALUES = 12
"""A row with more figures of one side shows their spread only. All of them are in the recorded lines."""
GENERATED = "`make bench` measures every row in one run and writes this page. Do not edit it by hand."
MARKS = {True: "holds", False: "**fails**", None: "not measured"}


def write_document(recording: Recording, folder: Path) -> Path:
    """Write the document and the plots into a folder, remove plots of earlier runs, and return the document."""
    plots = {row.name: svg for chapter in recording.chapters for row in chapter.rows if (svg := plot(row))}
    images = folder / NAME
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("*.svg"):
        old.unlink()
    for name, svg in plots.items():
        (images / f"{name}.svg").write_text(svg)
    document = folder / f"{NAME}.md"
    document.write_text(markdown(recording))
    return document


def failed(recording: Recording) -> bool:
    """Return whether a benchmark ended early, a row has no figures, or a claim does not hold.

    The sizes of a quick run are too small for most claims. It fails only by claims that something never happens.
    """
    rows = [row for chapter in recording.chapters for row in chapter.rows]
    checked = [
        verdict for row in rows for verdict in _verdicts(row) if verdict.claim.excludes or not recording.run.quick
    ]
    return (
        any(chapter.benchmark.error for chapter in recording.chapters)
        or not all(row.values for row in rows)
        or any(verdict.holds is False for verdict in checked)
    )


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(recording: Recording) -> str:
    if not recording.chapters:
        return f"# Performance\n\n{GENERATED}\n\nNo full run has been recorded yet.\n"
    parts = ["# Performance", *_introduction(recording.run), "## Claims", *_claims(recording.chapters)]
    for chapter in recording.chapters:
        parts += _chapter(chapter)
    return "\n\n".join(parts) + "\n"


def _introduction(run: RunRecord) -> Iterator[str]:
    yield GENERATED
    if run.quick:
        yield "**This was a quick run. It shows that every row can be measured. Its figures are no measurement.**"
    if run.load > QUIET_LOAD:
        yield f"**The machine had other work when the run began (load average {run.load:.2f}).**"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    yield (
        f"Run of {run.date}: {run.cores} cores, load average {run.load:.2f} at the beginning, {run.system}, "
        f"Python {run.python}; {versions}."
    )
    yield (
        "All servers run on 127.0.0.1 of the same machine. Each side of a row is measured in the same run, one after "
        "the other, because figures depend on the machine and its other load. Compare the ratios: a ratio divides "
        "figures of the same repeat."
    )
    yield (
        "A claim is the value that holds in nine of ten quiet runs. A goal is the value aimed at. The margin is the "
        "distance of the measured value to the claim, and is negative if the claim fails. In the plots, a bar is the "
        "median, a dot is one repeat, and a red line is the claim."
    )


def _claims(chapters: Sequence[Chapter]) -> Iterator[str]:
    rows = [
        (f"[{row.title}](#{_anchor(row.title)})", verdict)
        for chapter in chapters
        for row in chapter.rows
        for verdict in _verdicts(row)
    ]
    found = [verdict.holds for _, verdict in rows]
    yield (
        f"{len(found)} claims: {found.count(True)} hold, {found.count(False)} fail, "
        f"{found.count(None)} were not measured."
    )
    yield _table(
        ["row", "side", "claim", "goal", "measured", "margin", ""],
        [[title, *_claim_cells(verdict)] for title, verdict in rows],
        left=3,
    )


def _claim_cells(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    times = f" x {claim.to}" if claim.to else ""
    statistic = "" if claim.of == "median" else f" ({claim.of})"
    goal = "" if claim.goal is None else exact(claim.goal) + (" (reached)" if verdict.reaches_goal else "")
    return [
        claim.side,
        f"{claim.bound} {exact(claim.value)}{times}{statistic}",
        goal,
        "" if verdict.measured is None else number(verdict.measured),
        "" if verdict.margin is None else f"{verdict.margin:+.0%}",
        MARKS[verdict.holds],
    ]


def _chapter(chapter: Chapter) -> Iterator[str]:
    benchmark = chapter.benchmark
    yield f"## {benchmark.title}"
    yield f'    make bench ARGS="--only {benchmark.name}"    # {_seconds(benchmark.seconds)}'
    yield benchmark.description.strip()
    if benchmark.error:
        yield f"**{_ended_early(benchmark)}**"
    for row in chapter.rows:
        yield from _row(row)


def _row(row: RowRecord) -> Iterator[str]:
    yield f"### {row.title}"
    name = f"`{row.name}`, {row.unit}."
    yield f"{name} {row.what}" if row.what else name
    if not any(row.values.values()):
        yield "Not measured."
    else:
        yield f"![{row.title}, {row.unit}]({NAME}/{row.name}.svg)"
        yield _figures_table(row)
    judged = _verdicts(row)
    if judged:
        yield "\n".join(f"- {_verdict_line(row, verdict, MARKS)}" for verdict in judged)


def _figures_table(row: RowRecord) -> str:
    against = f"to {row.reference}" if row.reference else None
    rows: list[list[str]] = []
    for side, figures in row.values.items():
        spread = Spread.of(figures)
        shown = " ".join(map(number, figures)) if len(figures) <= SHOWN_VALUES else f"{len(figures)} figures"
        cells = [side, number(spread.minimum), number(spread.median), number(spread.maximum), shown]
        rows.append([*cells, _ratio(row, side)] if against else cells)
    header = ["", "minimum", "median", "maximum", "each repeat"]
    return _table([*header, against] if against else header, rows)


def _ratio(row: RowRecord, side: str) -> str:
    if row.reference is None or side == row.reference:
        return ""
    found = ratios(row.values, side, row.reference)
    return number(Spread.of(found).median) if found else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    marks = ["---" if column < left else "---:" for column in range(len(header))]
    lines = [header, marks, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _anchor(title: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    kept = "".join(each for each in title.lower() if each.isalnum() or each in " -_")
    return kept.replace(" ", "-")


# --- a terminal -----------------------------------------------------------------------------------------------------


def text(recording: Recording) -> str:
    """Return the report for a terminal: the figures of each row and its claims."""
    lines: list[str] = []
    if recording.run.quick:
        lines += ["Quick run: the figures are no measurement.", ""]
    for chapter in recording.chapters:
        lines += [f"{chapter.benchmark.title} ({_seconds(chapter.benchmark.seconds)})"]
        if chapter.benchmark.error:
            lines += [f"  {_ended_early(chapter.benchmark).upper()}"]
        for row in chapter.rows:
            lines += ["", *_text_of_row(row)]
        lines += [""]
    return "\n".join(lines)


def _text_of_row(row: RowRecord) -> Iterator[str]:
    yield f"  {row.title} ({row.name}), {row.unit}"
    width = max(map(len, row.values), default=0)
    for side, figures in row.values.items():
        spread = Spread.of(figures)
        shown = " / ".join(map(number, (spread.minimum, spread.median, spread.maximum)))
        ratio = _ratio(row, side)
        yield f"    {side:<{width}}  {shown:<28}" + (f"{ratio} x {row.reference}" if ratio else "")
    for verdict in _verdicts(row):
        yield f"    {_verdict_line(row, verdict, {True: 'holds', False: 'FAILS', None: 'not measured'})}"


def _verdict_line(row: RowRecord, verdict: Verdict, marks: Mapping[bool | None, str]) -> str:
    line = f"{claim_text(row.row, verdict.claim)}: {marks[verdict.holds]}"
    if verdict.measured is None:
        return line
    details = [f"measured {number(verdict.measured)}"]
    if verdict.margin is not None:
        details.append(f"margin {verdict.margin:+.0%}")
    if verdict.claim.of == "median" and verdict.repeats > 1:
        details.append(f"in {verdict.met} of {verdict.repeats} repeats")
    if verdict.claim.goal is not None:
        reached = "reached" if verdict.reaches_goal else "not reached"
        details.append(f"goal {exact(verdict.claim.goal)}, {reached}")
    return f"{line} ({', '.join(details)})"


def _verdicts(row: RowRecord) -> list[Verdict]:
    return verdicts(row.row, row.values)


def _ended_early(benchmark: BenchmarkRecord) -> str:
    return f"Ended early: {benchmark.error}. Rows may have no figures, or fewer repeats."


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
