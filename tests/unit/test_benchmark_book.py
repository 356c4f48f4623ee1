"""The benchmark book: what it records, how it judges claims, and what its report shows."""

import json
import os
import socket
from pathlib import Path

import pytest
from benchmarks.book.document import failed, markdown, text, write_document
from benchmarks.book.records import (
    BenchmarkRecord,
    Chapter,
    Recording,
    RecordingError,
    RowRecord,
    RunRecord,
    described_run,
    read,
)
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import FIGURES_FILE, Run
from benchmarks.book.selection import UnknownSelectionError, select
from benchmarks.book.verdicts import verdict

ROOT = Path(__file__).resolve().parents[2]
RATE = Row(
    name="relay.rate",
    title="Callbacks, 64 at once",
    unit="per second",
    reference="bare",
    claims=(Claim(side="relay", bound="at least", value=0.4, goal=0.6, to="bare"),),
)
LOST = Row(
    name="relay.lost",
    title="Answers lost",
    unit="answers",
    claims=(Claim(side="relay", bound="at most", value=0, of="maximum"),),
)


async def nothing(_: Run) -> None:
    pass


RELAY = Benchmark(name="relay", title="The relay", description="How fast.", rows=(RATE, LOST), measure=nothing)
SWEEP = Benchmark(
    name="sweep",
    title="The sweep",
    description="What it costs.",
    rows=(Row(name="sweep.cpu", title="CPU", unit="s"),),
    measure=nothing,
)


def recording(relay: list[float], lost: list[float], *, quick: bool = False) -> Recording:
    """A run with these figures beside a bare rate of 100."""
    run = RunRecord(
        quick=quick,
        complete=True,
        date="2026-01-31",
        cores=2,
        load=0.02,
        system="Linux x86_64",
        python="3.12.1",
        versions={"httpx": "0.28.1"},
    )
    benchmark = BenchmarkRecord(name="relay", title="The relay", description="How fast.", seconds=12, load=0.1)
    rows = [
        RowRecord.of(RATE, {"bare": [100.0] * len(relay), "relay": relay} if relay else {}),
        RowRecord.of(LOST, {"relay": lost}),
    ]
    return Recording(run, [Chapter(benchmark, rows)])


def test_recorded_lines_give_equal_bytes(tmp_path: Path) -> None:
    """The page depends on the recorded lines alone, so a change of the page is a change of figures."""
    measured = recording([50.0, 70.0, 60.0], [0.0])
    file = tmp_path / "run.jsonl"
    file.write_text(measured.lines())
    assert read(file) == measured
    assert markdown(read(file)) == markdown(measured)
    assert read(file).lines() == measured.lines()


@pytest.mark.edges
def test_plots_of_equal_figures_have_equal_bytes(tmp_path: Path) -> None:
    """Each row has its plot beside the page, drawn from the figures alone. Plots of rows that are gone are removed."""
    measured = recording([50.0, 70.0, 60.0], [0.0])
    (tmp_path / "first" / "performance").mkdir(parents=True)
    (tmp_path / "first" / "performance" / "old.svg").touch()
    first, second = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "first", tmp_path / "second")
        if write_document(measured, folder)
    )
    assert first == second
    assert set(first) == {"performance.md", "performance/relay.rate.svg", "performance/relay.lost.svg"}


def test_published_page_is_made_from_the_published_lines() -> None:
    """The page in `docs` is never edited by hand."""
    published = read(ROOT / "benchmarks" / "results" / "performance.jsonl")
    assert (ROOT / "docs" / "performance.md").read_text() == markdown(published)
    assert not published.run.quick


@pytest.mark.parametrize("render", [markdown, text])
def test_failed_claim_is_visible(render: object) -> None:
    """The report shows a claim that fails, with the measured value, and the run ends with a failure."""
    slow = recording([30.0, 38.0, 50.0], [0.0])
    assert callable(render)
    page: str = render(slow)
    assert "fails" in page.lower()
    assert "measured 0.38, margin -5%, in 1 of 3 repeats, goal 0.6, not reached" in page
    assert failed(slow)
    fast: str = render(recording([60.0], [0.0]))
    assert "margin +50%, goal 0.6, reached" in fast
    assert not failed(recording([60.0], [0.0]))


def test_row_without_figures_is_a_failure() -> None:
    """A benchmark that could not be measured does not look like one that passed."""
    empty = recording([], [0.0])
    assert "Not measured." in markdown(empty)
    assert "relay: at least 0.4 times bare (median): not measured" in text(empty)
    assert failed(empty)


def test_quick_run_fails_only_by_what_must_never_happen() -> None:
    """Small sizes say nothing about speed, but a lost answer is one in any size. The page is marked."""
    assert not failed(recording([10.0], [0.0], quick=True))
    assert failed(recording([60.0], [1.0], quick=True))
    assert "**This was a quick run." in markdown(recording([60.0], [0.0], quick=True))
    assert text(recording([60.0], [0.0], quick=True)).startswith("Quick run")


def test_ratio_divides_figures_of_the_same_repeat() -> None:
    """Other load of the machine concerns both sides of a repeat, so it does not change their ratio."""
    values = {"bare": [100.0, 50.0, 10.0], "relay": [50.0, 25.0, 5.0]}
    assert verdict(RATE.claims[0], values).measured == 0.5
    assert verdict(RATE.claims[0], values | {"relay": []}).holds is None


def test_record_of_a_run_names_no_machine() -> None:
    """The recorded lines can be published: no host name, no path, no user."""
    described = json.dumps(Recording(described_run(quick=False, complete=True), []).lines())
    secret = {socket.gethostname(), str(ROOT), str(Path.home()), os.sep}
    assert [each for each in secret if each in described] == []
    assert '\\"cores\\":' in described
    assert '\\"temporalio\\":' in described


def test_name_selects_a_benchmark_or_a_row() -> None:
    """`relay` selects every row of the relay, and `relay.lost` only that row."""
    assert select([RELAY, SWEEP], ["relay"]) == [(RELAY, [RATE, LOST])]
    assert select([RELAY, SWEEP], ["relay.lost", "sweep"]) == [(RELAY, [LOST]), (SWEEP, list(SWEEP.rows))]
    assert len(select([RELAY, SWEEP], [])) == 2


@pytest.mark.parametrize(
    ("name", "help_text"),
    [("relya", "similar: relay"), ("relay.lots", "rows: relay.rate, relay.lost"), ("", "benchmarks: relay, sweep")],
)
def test_unknown_name_lists_the_known_ones(name: str, help_text: str) -> None:
    """A misspelt name ends with a text that helps, before anything is measured."""
    with pytest.raises(UnknownSelectionError, match=f"no row is named '{name}'") as unknown:
        select([RELAY, SWEEP], [name])
    assert help_text in str(unknown.value)


def test_run_records_selected_rows_only(tmp_path: Path) -> None:
    """A benchmark may record every figure that it has; a row that it does not declare is a mistake."""
    run = Run(RELAY, ["relay.rate"], quick=True, repeats=2, folder=tmp_path)
    run.record(RATE, "relay", 12.3456, 3)
    run.record(LOST, "relay", 0)
    assert (tmp_path / FIGURES_FILE).read_text() == '{"row": "relay.rate", "side": "relay", "values": [12.35, 3.0]}\n'
    assert (run.wants(RATE), run.wants(LOST), run.size(1000, 60), list(run.repeats())) == (True, False, 60, [0, 1])
    with pytest.raises(ValueError, match=r"relay does not declare the row sweep\.cpu"):
        run.record(SWEEP.rows[0], "relay", 1)


def test_file_without_a_run_is_refused(tmp_path: Path) -> None:
    """A file of something else, or none, ends with its name instead of an empty report."""
    for name, content in {"other.jsonl": '{"a": 1}\n', "empty.jsonl": ""}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(RecordingError, match=name):
            read(tmp_path / name)
    with pytest.raises(RecordingError, match=r"missing\.jsonl"):
        read(tmp_path / "missing.jsonl")
