"""`StartedRuns`: how often a run may start again when its result was not stored."""

import pytest

from awaithumans_core import TargetGone
from awaithumans_core.runs import MAX_STARTS, NO_RUNS, RunsInMemory, StartedRuns


def test_a_second_start_from_the_same_position_is_the_last() -> None:
    once = NO_RUNS.after_start("a", settled=False)
    twice = once.after_start("a", settled=False)
    assert (once, twice) == (StartedRuns("a", 1), StartedRuns("a", MAX_STARTS))
    with pytest.raises(TargetGone, match=r"run 2 times from the same position .* then redrive"):
        twice.after_start("a", settled=False)


def test_a_position_that_a_run_has_reached_may_have_been_worked_on_once() -> None:
    """A run that made progress and was cut off may have begun what follows, so that is started only once more."""
    reached = NO_RUNS.after_start("a", settled=False).after_start("b", settled=False)
    assert reached == StartedRuns("b", MAX_STARTS)
    with pytest.raises(TargetGone):
        reached.after_start("b", settled=False)
    assert reached.after_start("c", settled=False) == StartedRuns("c", MAX_STARTS)


def test_a_known_end_begins_the_count_again() -> None:
    """A stored failure, or an operator's word, leaves nothing unknown."""
    assert StartedRuns("a", MAX_STARTS).after_start("a", settled=True) == StartedRuns("a", 1)


async def test_a_record_in_memory_counts_the_starts_of_one_answer() -> None:
    runs = RunsInMemory()
    for _ in range(MAX_STARTS):
        await runs.start("a", settled=False)
    with pytest.raises(TargetGone):
        await runs.start("a", settled=False)
