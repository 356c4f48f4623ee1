"""The circuit breaker of an engine: counts, opens, probes, closes. Pure; time is a number."""

from awaithumans_core.retry import Backoff
from awaithumans_relay.availability.circuit_breaker import PROBES, CircuitBreaker
from awaithumans_relay.availability.health import FAILED_TARGETS, Health
from awaithumans_relay.availability.tracker import AvailabilityTracker
from tests.support.clocks import ManualClock

ERROR = ConnectionError("refused")


def circuit_breaker() -> tuple[CircuitBreaker, AvailabilityTracker, ManualClock]:
    clock, tracker = ManualClock(), Health(["shelf"]).engine("shelf")
    return CircuitBreaker(tracker, clock, Backoff(first=10, factor=2, most=30, jitter=0)), tracker, clock


def trip(breaker: CircuitBreaker) -> list[bool]:
    """Fail for as many targets as open it, and return whether it was open after each failure."""
    after: list[bool] = []
    for number in range(FAILED_TARGETS):
        breaker.failed(f"target-{number}", ERROR)
        after.append(breaker.is_open)
    return after


def test_closed_breaker_admits_everything() -> None:
    """An engine that works is not held back."""
    closed, _, _ = circuit_breaker()
    assert closed.admits(256) == 256
    assert not closed.is_open


def test_failures_of_several_targets_open_it_once() -> None:
    """The last of several different targets shows that the engine is unreachable, once."""
    breaker, tracker, _ = circuit_breaker()
    assert trip(breaker) == [False] * (FAILED_TARGETS - 1) + [True]
    assert breaker.is_open
    assert breaker.admits(256) == 0
    assert breaker.probes_in == 10
    assert tracker.report()["last_error"] == "ConnectionError"


def test_failures_of_one_target_do_not_open_it() -> None:
    """A thread that fails again and again is its own problem."""
    breaker, _, _ = circuit_breaker()
    for _ in range(50):
        breaker.failed("the same", ERROR)
        assert not breaker.is_open
    assert breaker.admits(9) == 9


def test_success_in_between_starts_the_count_anew() -> None:
    """Failures in a row count, not failures altogether."""
    breaker, _, _ = circuit_breaker()
    for number in range(20):
        breaker.failed(f"target-{number}", ERROR)
        if number % 3 == 0:
            breaker.succeeded()
            assert not breaker.is_open
    assert not breaker.is_open


def test_open_breaker_lets_probes_through_at_growing_intervals() -> None:
    """Open, it lets a few probes through after a while; each failed probe makes the next one later."""
    breaker, _, clock = circuit_breaker()
    trip(breaker)
    for wait in (10, 20, 30, 30):
        assert breaker.probes_in == wait
        clock.now += wait
        assert breaker.admits(256) == PROBES
        breaker.probing()
        assert breaker.admits(256) == 0
        breaker.failed("probe", ERROR)
        assert breaker.probes_in == min(2 * wait, 30)


def test_one_success_closes_it() -> None:
    """The engine is reachable again."""
    breaker, tracker, clock = circuit_breaker()
    trip(breaker)
    clock.now += 10
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.admits(256) == 256
    assert "last_error" not in tracker.report()


def test_failures_under_way_do_not_keep_it_open_longer() -> None:
    """Deliveries that were under way when it opened fail without making the pause longer."""
    breaker, _, _ = circuit_breaker()
    trip(breaker)
    for number in range(100):
        breaker.failed(f"straggler-{number}", ERROR)
    assert breaker.probes_in == 10
