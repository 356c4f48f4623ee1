"""The breaker of an engine: counts, opens, probes, closes. Pure; time is a number."""

from awaithumans_core.retry import Backoff
from awaithumans_relay.availability.circuit_breaker import PROBES, TRIPS_AT, Breaker
from tests.support.clocks import ManualClock


def breaker() -> tuple[Breaker, ManualClock]:
    clock = ManualClock()
    return Breaker(clock, Backoff(first=10, factor=2, most=30, jitter=0)), clock


def trip(breaker: Breaker) -> list[bool]:
    return [breaker.failed(f"target-{number}", "away") for number in range(TRIPS_AT)]


def test_closed_it_admits_everything() -> None:
    """An engine that works is not held back."""
    closed, _ = breaker()
    assert closed.admits(256) == 256
    assert not closed.away


def test_several_targets_trip_it_once() -> None:
    """The last of several different targets says that the engine has gone, once."""
    open_, _ = breaker()
    assert trip(open_) == [False] * (TRIPS_AT - 1) + [True]
    assert open_.away
    assert open_.admits(256) == 0
    assert open_.opens_in == 10
    assert open_.last_error == "away"


def test_one_target_does_not_trip_it() -> None:
    """A thread that fails again and again is its own trouble."""
    closed, _ = breaker()
    assert not any(closed.failed("the same", "broken") for _ in range(50))
    assert closed.admits(9) == 9


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Failures in a row count, not failures altogether."""
    closed, _ = breaker()
    for number in range(20):
        closed.failed(f"target-{number}", "away")
        if number % 3 == 0:
            assert closed.succeeded() is False
    assert not closed.away


def test_after_a_while_a_few_are_let_through() -> None:
    """Open, it lets a few see whether the engine is back; each failed look makes the next one later."""
    open_, clock = breaker()
    trip(open_)
    for wait in (10, 20, 30, 30):
        assert open_.opens_in == wait
        clock.now += wait
        assert open_.admits(256) == PROBES
        open_.probing()
        assert open_.admits(256) == 0
        assert open_.failed("probe", "still away") is False


def test_one_success_closes_it() -> None:
    """The engine is back, said once."""
    open_, clock = breaker()
    trip(open_)
    clock.now += 10
    assert open_.succeeded() is True
    assert open_.succeeded() is False
    assert open_.admits(256) == 256
    assert open_.last_error is None


def test_stragglers_do_not_keep_it_open_longer() -> None:
    """Deliveries that were under way when it tripped fail without making the pause longer."""
    open_, _ = breaker()
    trip(open_)
    for number in range(100):
        open_.failed(f"straggler-{number}", "away")
    assert open_.opens_in == 10
