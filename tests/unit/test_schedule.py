"""When the relay looks at an open wait by itself."""

from hypothesis import assume, given
from hypothesis import strategies as st

from awaithumans_core.deleted_tasks import CONFIRM_SECONDS, DEADLINE_SECONDS, RULE
from awaithumans_relay.store.schedule import (
    LONGEST_REDELIVERY_SECONDS,
    MOST_CHECK_SECONDS,
    REDELIVERIES,
    REDELIVERY_REST_SECONDS,
    next_check,
    next_redelivery,
)
from awaithumans_relay.sweep.deleted_tasks import FLUSH_SECONDS

NOW = 1_790_000_000.0
MONTH = 30 * 24 * 3600.0
LONGEST = 9 * 60.0
MICROSECOND = 1e-6
"""What is lost of a second when it is counted since 1970."""

ages = st.floats(0, 2 * MONTH)
times_left = st.floats(-MONTH, MONTH)


def looks(age: float, left: float = MONTH, times: int = 40) -> tuple[float, float]:
    """Soonest and latest next look, in seconds, of many waits of this age with so much time left."""
    after = [next_check(now=NOW, created_at=NOW - age, deadline_at=NOW + left) - NOW for _ in range(times)]
    return min(after) + MICROSECOND, max(after) - MICROSECOND


@given(st.floats(0, 100))
def test_a_new_wait_is_looked_at_after_five_seconds(age: float) -> None:
    """Not before 4.5 s, as the server's own callbacks leave every 5 s; not after 5 s, as they may never come."""
    soonest, latest = looks(age)
    assert soonest >= 4.5
    assert latest <= 5.0


@given(ages)
def test_a_look_comes_within_a_twentieth_of_the_age(age: float) -> None:
    """An answer that is never called back is noticed within 5 % of the time the person took."""
    assert looks(age)[1] <= max(5.0, 0.05 * age)


@given(st.floats(100, LONGEST / 0.05))
def test_looks_are_brought_forward_by_a_tenth_at_most(age: float) -> None:
    """Jitter does not turn the schedule into a faster one."""
    assert looks(age)[0] >= 0.9 * 0.05 * age


@given(ages, times_left)
def test_a_check_is_never_later_than_nine_minutes(age: float, left: float) -> None:
    """However old the wait, and whatever its deadline, a task that was deleted is noticed in time."""
    assert looks(age, left)[1] <= LONGEST


@given(st.floats(LONGEST / 0.05, 12 * MONTH))
def test_an_old_wait_costs_a_few_looks_an_hour(age: float) -> None:
    """The schedule stops growing at its ceiling, and does not come closer either."""
    soonest, latest = looks(age)
    assert soonest >= 0.9 * LONGEST
    assert latest > 0.95 * LONGEST


@given(ages, st.floats(0, 2 * LONGEST))
def test_no_look_is_planned_beyond_the_deadline(age: float, left: float) -> None:
    """The look after the deadline follows within seconds of it, once the server has marked the timeout."""
    assert looks(age, left)[1] <= left + 10.0


@given(ages, st.floats(0, LONGEST))
def test_the_look_at_the_deadline_leaves_the_server_time_to_mark_it(age: float, left: float) -> None:
    """A look that is put forward to the deadline comes after the server's scheduler, which runs every 5 s."""
    interval = min(max(5.0, 0.05 * age), LONGEST)
    assume(0.9 * interval > left + 10.0)
    assert looks(age, left)[0] >= left + 5.0


@given(ages, st.floats(60, MONTH))
def test_a_wait_past_its_deadline_keeps_its_schedule(age: float, over: float) -> None:
    """A task the server has not ended in time is looked at further, and not in a storm."""
    assert looks(age, -over)[0] >= 4.5


@given(st.floats(0.001, 3600))
def test_a_clock_that_went_back_makes_no_storm(ahead: float) -> None:
    """A wait that seems to come from the future is looked at as a new one."""
    soonest, latest = looks(-ahead)
    assert soonest >= 4.5
    assert latest <= 5.0


def test_looks_at_waits_opened_together_spread() -> None:
    """Waits of one batch do not stay together on the server."""
    soonest, latest = looks(10_000.0, times=2000)
    assert latest - soonest > 40


def test_a_deleted_task_is_confirmed_within_a_quarter_of_an_hour() -> None:
    """The longest check, the readings that confirm it and a minute for delivery fit into what callers are promised."""
    confirming = (RULE.readings - 1) * RULE.recheck_seconds
    assert confirming >= CONFIRM_SECONDS
    assert MOST_CHECK_SECONDS + confirming + FLUSH_SECONDS + 50 <= DEADLINE_SECONDS == 900


@given(st.integers(0, 2 * REDELIVERIES), st.floats(-MONTH, MONTH))
def test_a_repeated_delivery_is_never_far_ahead_and_never_past_the_cap(count: int, since_last: float) -> None:
    """Whatever the clock did meanwhile: a time that is too far ahead was set by a clock that was ahead."""
    planned = next_redelivery(now=NOW, count=count, last=NOW - since_last)
    if planned is None:
        assert count >= REDELIVERIES
        assert since_last < REDELIVERY_REST_SECONDS
    else:
        due, counted = planned
        assert NOW <= due <= NOW + LONGEST_REDELIVERY_SECONDS
        assert counted <= REDELIVERIES
