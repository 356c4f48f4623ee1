"""Rechecks: how often the waiting activity is retried in activity mode."""

from datetime import timedelta

import pytest

from awaithumans_adapters.temporal.workflow.activity_mode import interval

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "attempts"),
    [(60, 1), (900, 1), (HOUR, 1), (6 * HOUR, 6), (DAY, 4), (3 * DAY, 12), (7 * DAY, 7), (30 * DAY, 30)],
)
def test_default_recheck_interval_grows_with_the_timeout(seconds: int, attempts: int) -> None:
    """Each attempt is a billed action, so a question of 30 days takes 31 and not 721."""
    assert round((seconds + 15) / interval(seconds, None).total_seconds()) == attempts


@pytest.mark.parametrize(
    ("seconds", "recheck", "attempts"),
    [(900, timedelta(seconds=3), 300), (DAY, timedelta(hours=1), 24), (HOUR, timedelta(days=10), 1)],
)
def test_given_recheck_interval_is_kept(seconds: int, recheck: timedelta, attempts: int) -> None:
    """The intervals are equal, and the last one ends with the timeout and the server's grace period."""
    assert round((seconds + 15) / interval(seconds, recheck).total_seconds()) == attempts
