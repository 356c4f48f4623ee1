"""`StartedRuns`: how often a run may be started again after its result was not stored."""

import pytest

from awaithumans_core import TargetGone
from awaithumans_core.runs import MAX_STARTS, NO_RUNS, RunsInMemory, StartedRuns


def test_run_is_started_at_most_twice_from_one_position() -> None:
    """A second start from the same position is the last."""
    once = NO_RUNS.after_start("a", settled=False)
    twice = once.after_start("a", settled=False)
    assert (once, twice) == (StartedRuns("a", 1), StartedRuns("a", MAX_STARTS))
    with pytest.raises(TargetGone, match=r"run 2 times from the same position .* then redrive"):
        twice.after_start("a", settled=False)


def test_position_reached_by_a_run_is_started_only_once_more() -> None:
    """A run that made progress and was interrupted may have begun the next step."""
    reached = NO_RUNS.after_start("a", settled=False).after_start("b", settled=False)
    assert reached == StartedRuns("b", MAX_STARTS)
    with pytest.raises(TargetGone):
        reached.after_start("b", settled=False)
    assert reached.after_start("c", settled=False) == StartedRuns("c", MAX_STARTS)


def test_known_end_resets_the_count() -> None:
    """After a stored failure or an operator's decision the state is known."""
    assert StartedRuns("a", MAX_STARTS).after_start("a", settled=True) == StartedRuns("a", 1)


async def test_memory_record_counts_starts() -> None:
    """A record in memory refuses a start after the maximum."""
    runs = RunsInMemory()
    for _ in range(MAX_STARTS):
        await runs.start("a", settled=False)
    with pytest.raises(TargetGone):
        await runs.start("a", settled=False)
