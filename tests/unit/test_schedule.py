"""The schedule of the sweep: when the relay checks an open wait."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from awaithumans_core.deleted_tasks import CONFIRM_SECONDS, DEADLINE_SECONDS, RULE
from awaithumans_core.schedule import (
    MAX_CHECK_SECONDS,
    SAVED_SECONDS,
    SHARE,
    Budget,
    Costs,
    OpenPage,
    Reads,
    Standing,
    best_way,
    next_check,
)
from awaithumans_core.schedule.budget import REST_SECONDS
from awaithumans_core.schedule.costs import MAX_PAGE_TASKS, MAX_STATUSES, SLOW_REST_SECONDS
from awaithumans_relay.store.schedule import (
    MAX_REDELIVERIES,
    MAX_REDELIVERY_SECONDS,
    REDELIVERY_REST_SECONDS,
    next_redelivery,
)
from awaithumans_relay.sweep.deleted_tasks import FLUSH_SECONDS

NOW = 1_790_000_000.0
MONTH = 30 * 24 * 3600.0
LONGEST = 9 * 60.0
MICROSECOND = 1e-6
"""Rounding error of a time in seconds since 1970."""

ages = st.floats(0, 2 * MONTH)
times_left = st.floats(-MONTH, MONTH)


def check_times(age: float, left: float = MONTH, times: int = 40) -> tuple[float, float]:
    """Return the earliest and latest next check, in seconds, of many waits of this age and remaining time."""
    after = [next_check(now=NOW, created_at=NOW - age, deadline_at=NOW + left) - NOW for _ in range(times)]
    return min(after) + MICROSECOND, max(after) - MICROSECOND


@given(st.floats(0, 20))
def test_new_wait_is_checked_within_a_second(age: float) -> None:
    """Not before 0.8 s, which limits the cost, and early enough that the check itself fits into the second."""
    soonest, latest = check_times(age)
    assert soonest >= 0.8
    assert latest <= 0.9


@given(ages)
def test_check_interval_is_five_percent_of_the_age(age: float) -> None:
    """An answer without a callback is found within 5 % of the time that the person took, with time for the request."""
    assert check_times(age)[1] <= max(0.9, 0.045 * age)


@given(st.floats(20, LONGEST / 0.045))
def test_jitter_advances_a_check_by_a_tenth_at_most(age: float) -> None:
    """Jitter does not make the schedule faster than that."""
    assert check_times(age)[0] >= 0.9 * 0.045 * age - MICROSECOND


@given(ages, times_left)
def test_check_interval_is_nine_minutes_at_most(age: float, left: float) -> None:
    """A deleted task is found in time, whatever the age and deadline of its wait."""
    assert check_times(age, left)[1] <= LONGEST


@given(st.floats(LONGEST / 0.045, 12 * MONTH))
def test_old_wait_costs_few_checks_per_hour(age: float) -> None:
    """The interval stops growing at its maximum and does not shrink again."""
    soonest, latest = check_times(age)
    assert soonest >= 0.9 * LONGEST
    assert latest > 0.95 * LONGEST


@given(ages, st.floats(0, 2 * LONGEST))
def test_check_follows_the_deadline_within_seconds(age: float, left: float) -> None:
    """The check comes once the server has had time to mark the timeout."""
    assert check_times(age, left)[1] <= left + 10.0


@given(ages, st.floats(0, LONGEST))
def test_check_at_the_deadline_waits_for_the_server(age: float, left: float) -> None:
    """The check comes after the server's scheduler, which runs every 5 s."""
    interval = min(max(0.9, 0.045 * age), LONGEST)
    assume(0.9 * interval > left + 10.0)
    assert check_times(age, left)[0] >= left + 5.0


@given(ages, st.floats(60, MONTH))
def test_wait_past_its_deadline_keeps_its_schedule(age: float, over: float) -> None:
    """A task that the server has not ended in time is still checked at the usual interval."""
    assert check_times(age, -over)[0] >= 0.8


@given(st.floats(0.001, 3600))
def test_clock_set_back_causes_no_storm(ahead: float) -> None:
    """A wait that seems to come from the future is checked like a new one."""
    soonest, latest = check_times(-ahead)
    assert soonest >= 0.8
    assert latest <= 0.9


def test_checks_of_waits_opened_together_spread() -> None:
    """Waits of one batch do not stay synchronized."""
    soonest, latest = check_times(10_000.0, times=2000)
    assert latest - soonest > 40


def test_deleted_task_is_confirmed_within_fifteen_minutes() -> None:
    """The longest interval, the confirming reads and a minute for delivery fit into the promised time."""
    confirming = (RULE.readings - 1) * RULE.recheck_seconds
    assert confirming >= CONFIRM_SECONDS
    assert MAX_CHECK_SECONDS + confirming + FLUSH_SECONDS + 50 <= DEADLINE_SECONDS == 900


def test_slow_page_stops_the_use_of_pages_like_it() -> None:
    """A page that takes three seconds is not tried again for ten minutes, then for twenty.

    One deep in the list leaves the first pages in use, which are fast. A slow first page stops the use of the list.
    """

    def way(rank: int, now: float) -> object:
        waits = 300
        due, ages = [True] * waits, [3600.0 + number for number in range(waits)]
        return best_way(costs, Standing(rank=rank, due=due, proved=[False] * waits, ages=ages), now)

    costs = Costs()
    costs.read_took(0.004)
    listed = costs.open("created")
    listed.largest = MAX_PAGE_TASKS
    for again, rest in enumerate((SLOW_REST_SECONDS, 2 * SLOW_REST_SECONDS)):
        began = 10_000.0 * again
        assert isinstance(way(1000, began), OpenPage)
        listed.took(50, 900, 3.0, MAX_PAGE_TASKS, costs, began)
        for _ in range(20):
            listed.took(50, 0, 0.01, MAX_PAGE_TASKS, costs, began)
        assert isinstance(way(1000, began + rest - 1), Reads)
        assert isinstance(way(0, began), OpenPage)
    assert isinstance(way(1000, began + rest), OpenPage)
    listed.took(50, 0, 3.0, MAX_PAGE_TASKS, costs, began + rest)
    assert isinstance(way(0, began + rest), Reads)
    assert isinstance(way(1000, began + rest), Reads)


@pytest.mark.parametrize("rank", [1_000, 10_000, 100_000])
def test_page_is_used_at_any_depth(rank: int) -> None:
    """A page replaces many reads wherever it is, and it begins above the place of the first wait.

    Nine of ten tasks are ours. Of the youngest ones, whose page is read most often, all are.
    """
    costs = Costs()
    listed = costs.open("created")
    listed.largest = MAX_PAGE_TASKS
    listed.joined(200, 200)
    listed.joined(int(0.9 * rank), rank)
    due, ages = [True] * 300, [3600.0 + number for number in range(300)]
    way = best_way(costs, Standing(rank=rank, due=due, proved=[False] * 300, ages=ages), NOW)
    assert isinstance(way, OpenPage)
    assert way.offset < rank / 0.9 < way.offset + way.size / 4


def test_page_without_our_tasks_moves_the_estimated_place() -> None:
    """Place estimates of old waits are corrected, also if all tasks around the place belong to others."""
    listed = Costs().open("created")
    listed.joined(1_000, 1_000)
    listed.missed(1_000, beyond=False)
    assert listed.share(1_000) == 0.5
    listed.missed(1_000, beyond=True)
    listed.missed(1_000, beyond=True)
    assert listed.share(1_000) == 1.0


@given(st.integers(0, 2 * MAX_REDELIVERIES), st.floats(-MONTH, MONTH))
def test_repeated_delivery_is_limited_in_time(count: int, since_last: float) -> None:
    """A time too far ahead was set by a clock that was ahead, and it is corrected."""
    planned = next_redelivery(now=NOW, count=count, last=NOW - since_last)
    if planned is None:
        assert count >= MAX_REDELIVERIES
        assert since_last < REDELIVERY_REST_SECONDS
    else:
        due, counted = planned
        assert NOW <= due <= NOW + MAX_REDELIVERY_SECONDS
        assert counted <= MAX_REDELIVERIES


def test_lists_of_invented_statuses_are_not_kept() -> None:
    """A server that gives each task a status of its own fills no memory, and known lists stay in use."""
    costs = Costs()
    known = costs.open("created")
    lists = {id(costs.open(f"status {number}")) for number in range(1000)}
    assert len(lists) <= MAX_STATUSES
    assert not costs.open("status 999").usable(0.0)
    assert costs.open("created") is known
    assert known.usable(0.0)


@given(spent=st.floats(0, 1e9), passed=st.floats(-1e9, 1e9))
def test_budget_never_stops_the_checks_for_longer_than_it_saves(spent: float, passed: float) -> None:
    """Whatever a relay owed when it died, and however a clock was set, the next request is a minute away at most."""
    budget = Budget.full(1e9)
    budget.spend(spent)
    budget.refill(1e9 + passed)
    assert budget.wait() <= SAVED_SECONDS + REST_SECONDS
    assert budget.left <= SHARE * SAVED_SECONDS
