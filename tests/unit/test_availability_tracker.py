"""The tracker of one dependency: its state, what changes it, and the two log lines."""

import logging

import pytest

from awaithumans_relay.availability.tracker import AvailabilityTracker

ERROR = ConnectionError("refused")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_unreachable_dependency_is_logged_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it is unreachable, with the cause, and one when it is reachable again."""
    caplog.set_level(logging.WARNING, "awaithumans.relay")
    tracker = AvailabilityTracker("engine shelf")
    for _ in range(3):
        tracker.failed(ERROR)
    for _ in range(3):
        tracker.responded()
    assert lines(caplog) == [
        ("ERROR", "engine shelf unreachable: ConnectionError: refused"),
        ("WARNING", "engine shelf reachable again after 0 s"),
    ]
    assert vars(caplog.records[0])["dependency"] == "engine shelf"


def test_failures_below_the_limit_are_shown_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A single lost connection is no outage, but the state shows it until the next success."""
    tracker = AvailabilityTracker("awaithumans server", failure_limit=3)
    tracker.failed(ERROR)
    tracker.failed(ERROR)
    assert (tracker.state, tracker.unresponsive) == ("failing", False)
    tracker.succeeded()
    assert tracker.report().keys() == {"state", "since"}
    tracker.failed(ERROR)
    assert (tracker.state, tracker.unresponsive) == ("failing", False)
    assert not caplog.records


def test_response_to_a_check_does_not_hide_that_all_work_fails() -> None:
    """An engine that responds to checks and accepts no delivery stays failing until a delivery succeeds."""
    tracker = AvailabilityTracker("engine shelf", subject_limit=2)
    assert [tracker.subject_failed(target, ERROR) for target in ("a", "a", "b", "c")] == [False, False, True, False]
    tracker.responded()
    assert (tracker.state, tracker.all_work_fails, tracker.check_due.is_set()) == ("failing", True, False)
    tracker.succeeded()
    assert (tracker.state, tracker.all_work_fails) == ("ok", False)


def test_response_to_a_check_keeps_the_count_of_failed_targets() -> None:
    """Otherwise an engine that responds to checks could fail for every target without being unreachable."""
    tracker = AvailabilityTracker("engine shelf", subject_limit=2)
    assert not tracker.subject_failed("a", ERROR)
    tracker.responded()
    assert tracker.subject_failed("b", ERROR)


def test_failure_of_one_target_requests_a_check_and_changes_no_state() -> None:
    """Whether the engine is unreachable is not known from one target."""
    tracker = AvailabilityTracker("engine shelf", subject_limit=5)
    tracker.subject_failed("a", ERROR)
    assert tracker.check_due.is_set()
    assert tracker.report() == {"state": "unknown"}


def test_text_of_an_error_is_not_reported() -> None:
    """`/readyz` shows its type only, because its text may repeat an answer."""
    tracker = AvailabilityTracker("engine shelf")
    tracker.failed(ERROR)
    assert tracker.report()["last_error"] == "ConnectionError"
    assert "refused" not in str(tracker.report())


async def test_slow_dependency_is_slow_for_a_time() -> None:
    """Requests that can wait are not sent to it meanwhile."""
    tracker = AvailabilityTracker("engine shelf")
    assert not tracker.slow
    tracker.took_too_long(60)
    assert tracker.slow
    tracker.took_too_long(0)
    assert not tracker.slow
