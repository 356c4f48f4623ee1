"""Backoff: the delays between retries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaithumans_core.retry import Backoff

STEADY = Backoff(first=0.5, factor=2.0, most=30.0, jitter=0.0)
SPREAD = Backoff(first=0.5, factor=2.0, most=30.0, jitter=0.25)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (6, 16.0), (7, 30.0), (8, 30.0), (100_000, 30.0)]
)
def test_delays_double_up_to_the_maximum(failures: int, seconds: float) -> None:
    """Each failure doubles the delay up to the maximum, where it stays."""
    assert STEADY.delay(failures) == seconds


@given(st.integers(1, 10_000))
def test_jitter_stays_within_its_share(failures: int) -> None:
    """A delay differs from its plain value by the jitter's share at most."""
    plain = STEADY.delay(failures)
    delays = [SPREAD.delay(failures) for _ in range(40)]
    assert 0.75 * plain <= min(delays)
    assert max(delays) <= 1.25 * plain


def test_jitter_uses_its_whole_range() -> None:
    """Many callers spread over the whole range, which avoids a thundering herd."""
    delays = [SPREAD.delay(1) for _ in range(2000)]
    assert min(delays) < 0.4
    assert max(delays) > 0.6


@given(st.integers(1, 200), st.floats(0, 3600))
def test_retry_after_is_a_minimum(failures: int, at_least: float) -> None:
    """A delay is never shorter than Retry-After."""
    assert SPREAD.delay(failures, at_least=at_least) >= at_least


def test_default_delays_are_short_first_and_bounded() -> None:
    """By default the first retry comes within a second, and the end of a long outage is noticed in half a minute."""
    assert max(Backoff().delay(1) for _ in range(200)) < 1.0
    assert max(Backoff().delay(100) for _ in range(200)) < 40.0
    assert len({Backoff().delay(1) for _ in range(200)}) > 100


def test_retry_after_does_not_shorten_a_delay() -> None:
    """A small Retry-After leaves a longer backoff unchanged."""
    assert STEADY.delay(6, at_least=1.0) == 16.0
