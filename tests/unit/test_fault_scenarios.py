"""The fault scenarios are complete, and the page of their last full run has each of them."""

from tests.faults.__main__ import SHORT, found
from tests.faults.report import PAGE


def test_reliability_page_has_every_scenario() -> None:
    """A scenario that was added or changed needs a full run: `make faults`."""
    page = PAGE.read_text()
    rows = [f"| {each.fault} | {each.result} |" for each in found("").values()]
    assert len(rows) == len(set(rows))
    assert [row for row in rows if row not in page] == []
    assert page.count("\n| ") == len(rows) + page.count("\n| fault |")


def test_short_run_has_existing_scenarios() -> None:
    """CI runs the scenarios that it names."""
    assert set(SHORT) <= found("").keys()
