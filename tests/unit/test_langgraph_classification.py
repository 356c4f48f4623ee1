"""`classify` maps what was read of a thread to one case, and asks for no fact that cannot change it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import Untaken
from awaithumans_adapters.langgraph.delivery.classification import (
    Case,
    Fact,
    NextQuestion,
    Snapshot,
    classify,
    read_case,
)
from awaithumans_adapters.langgraph.delivery.rules import (
    Action,
    error_for,
    orphan_reason,
    reason_for,
    rule_of,
)
from awaithumans_core.engine import RelayNotReady, TargetBusy, TargetGone, TargetNotReady

OWN = "langgraph:t:node:1"
UNMODIFIED = f"langgraph:t:interrupt:{'0' * 32}:{'0' * 16}"

READ: dict[Fact, tuple[str, ...]] = {
    Fact.THREAD: ("exists", "deleted", "hidden", "run_active"),
    Fact.SHOWN: ("shown_by",),
    Fact.RUNNING_BESIDE: ("running_beside", "running_timed_out"),
    Fact.FAILED_BESIDE: ("failed_beside",),
    Fact.UNSTORED_BESIDE: ("unstored_beside",),
    Fact.ANSWERED: ("answered",),
    Fact.STOPPED: ("stopped_in",),
    Fact.FAILED: ("failed",),
    Fact.NEXT_QUESTION: ("next_question",),
    Fact.EVER_SHOWN: ("ever_shown",),
    Fact.QUEUED: ("queued",),
    Fact.SHOWS_ANSWERED: ("shows_answered",),
    Fact.NODE_MISSING: ("node_missing",),
    Fact.UNTAKEN: ("untaken",),
    Fact.OTHERS_SHOWN: ("others_shown",),
    Fact.REMOVED: ("removed",),
}
"""Fields of the snapshot that are set when a fact is read."""

THREAD: dict[str, Any] = {"exists": True, "deleted": False, "hidden": "", "run_active": False, "shown_by": ()}
SHOWN: dict[str, Any] = {**THREAD, "shown_by": ("a",), "running_beside": "", "failed_beside": "", "unstored_beside": ""}
TAKEN: dict[str, Any] = {**THREAD, "answered": True, "ever_shown": True}
STOPPED: dict[str, Any] = {**TAKEN, "stopped_in": ("a",), "failed": ""}
ENDED: dict[str, Any] = {**TAKEN, "stopped_in": (), "run_cut_short": True}
ASKED: dict[str, Any] = {**THREAD, "answered": False, "ever_shown": True, "queued": False, "node_missing": False}
NEVER_SHOWN: dict[str, Any] = {**THREAD, "answered": False, "ever_shown": False, "untaken": Untaken.NOT_RECORDED}

EXAMPLES: list[tuple[Case, dict[str, Any]]] = [
    (Case.PENDING, SHOWN),
    (Case.PENDING, {**SHOWN, "running_beside": "slow", "running_timed_out": True}),
    (Case.PENDING, {**THREAD, "shown_by": ("a",), "answer_known": False}),
    (Case.AMBIGUOUS, {**THREAD, "shown_by": ("a", "b")}),
    (Case.AMBIGUOUS, {**TAKEN, "stopped_in": ("a", "b")}),
    (Case.RUNNING_BESIDE, {**SHOWN, "running_beside": "slow"}),
    (Case.FAILED_BESIDE, {**SHOWN, "failed_beside": "node 'x' failed (ValueError())"}),
    (Case.UNSTORED_BESIDE, {**SHOWN, "unstored_beside": "x"}),
    (Case.ANSWERED, {**TAKEN, "stopped_in": ()}),
    (Case.ANSWERED, {**TAKEN, "answer_known": False}),
    (Case.ANSWERED, {**TAKEN, "run_ended": True}),
    (Case.ANSWERED, {**ENDED, "next_question": NextQuestion.NONE}),
    (Case.ANSWERED, {**NEVER_SHOWN, "delivered_before": True, "failed": ""}),
    (Case.CUT_OFF, STOPPED),
    (Case.FAILED, {**STOPPED, "failed": "node 'x' failed"}),
    (Case.FAILED, {**NEVER_SHOWN, "delivered_before": True, "failed": "node 'x' failed"}),
    (Case.FAILED_MAY_RETRY, {**STOPPED, "failed": "node 'x' failed", "may_retry": True}),
    (Case.FAILED_REDRIVEN, {**STOPPED, "failed": "node 'x' failed", "redriven": True}),
    (Case.FAILED_REDRIVEN, {**STOPPED, "failed": "node 'x' failed", "redriven": True, "may_retry": True}),
    (Case.NEXT_UNASKED, {**ENDED, "next_question": NextQuestion.NEXT_STEP}),
    (Case.NEXT_UNASKED_IN_STEP, {**ENDED, "next_question": NextQuestion.SAME_STEP}),
    (Case.LOST, {**STOPPED, "failed": "node 'x' failed", "ever_shown": False}),
    (Case.QUEUED, {**ASKED, "queued": True, "shows_answered": False}),
    (Case.QUEUED, {**ASKED, "queued": True, "was_run_on": True}),
    (Case.QUEUED, {**ASKED, "queued": True, "answer_known": False}),
    (Case.QUEUED, {**NEVER_SHOWN, "untaken": Untaken.OPEN, "others_shown": True}),
    (Case.BEHIND_ANSWERED, {**ASKED, "queued": True, "shows_answered": True}),
    (Case.OTHER_RELEASE, {**ASKED, "node_missing": True}),
    (Case.SUPERSEDED, {**ASKED, "untaken": Untaken.REPLACED}),
    (Case.SUPERSEDED, {**ASKED, "untaken": Untaken.NOT_RECORDED}),
    (Case.SUPERSEDED, {**NEVER_SHOWN, "untaken": Untaken.REPLACED}),
    (Case.UPDATED, {**ASKED, "untaken": Untaken.UPDATED}),
    (Case.CONTINUED, {**NEVER_SHOWN, "untaken": Untaken.CONTINUED}),
    (Case.DECIDED, {**NEVER_SHOWN, "untaken": Untaken.DECIDED}),
    (Case.REMOVED, {**NEVER_SHOWN, "removed": True}),
    (Case.RUN_ACTIVE, {**THREAD, "run_active": True}),
    (Case.HIDDEN, {**THREAD, "exists": False, "hidden": "other credentials", "deleted": True}),
    (Case.DELETED, {**THREAD, "exists": False, "deleted": True}),
    (Case.NOT_YET, {**THREAD, "exists": False}),
    (Case.NOT_YET, {**NEVER_SHOWN, "removed": False}),
    (Case.NOT_YET, {**NEVER_SHOWN, "untaken": Untaken.OPEN, "others_shown": False, "removed": False}),
]


@pytest.mark.parametrize(("case", "known"), EXAMPLES, ids=[f"{n}-{case.name}" for n, (case, _) in enumerate(EXAMPLES)])
def test_example_is_classified(case: Case, known: dict[str, Any]) -> None:
    """The facts that are given suffice, and no other fact is asked for."""
    assert classify(Snapshot(**known), OWN) is case


def test_interrupt_that_the_application_resumed_is_told_apart_by_its_key() -> None:
    """Only the relay answers questions of this package, so that the same facts mean a delivered answer for them."""
    resumed = Snapshot(**TAKEN, answer_known=False)
    assert classify(resumed, UNMODIFIED) is Case.RESUMED_BY_APPLICATION
    assert classify(resumed, OWN) is Case.ANSWERED
    assert classify(Snapshot(**TAKEN, stopped_in=()), UNMODIFIED) is Case.ANSWERED


def test_every_case_has_an_example() -> None:
    assert {case for case, _ in EXAMPLES} | {Case.RESUMED_BY_APPLICATION} == set(Case)


def test_every_fact_is_documented_with_its_fields() -> None:
    """The fields that start as None are exactly those that are read."""
    unread = {name for name, default in Snapshot._field_defaults.items() if default is None}
    assert unread == {name for names in READ.values() for name in names} - {"running_timed_out"}
    assert set(READ) == set(Fact)


texts, flags = st.sampled_from(["", "x"]), st.booleans()
names = st.sampled_from([(), ("a",), ("a", "b")])
complete = st.builds(
    Snapshot,
    answer_known=flags,
    redriven=flags,
    may_retry=flags,
    run_ended=flags,
    run_cut_short=flags,
    delivered_before=flags,
    was_run_on=flags,
    exists=flags,
    deleted=flags,
    hidden=texts,
    run_active=flags,
    shown_by=names,
    running_beside=texts,
    running_timed_out=flags,
    failed_beside=texts,
    unstored_beside=texts,
    answered=flags,
    stopped_in=names,
    failed=texts,
    next_question=st.sampled_from(NextQuestion),
    ever_shown=flags,
    queued=flags,
    shows_answered=flags,
    node_missing=flags,
    untaken=st.sampled_from(Untaken),
    others_shown=flags,
    removed=flags,
)


class Reveals:
    """Reads from a complete snapshot what is asked for, and notes it."""

    def __init__(self, everything: Snapshot) -> None:
        self.everything = everything
        self.asked_for: list[Fact] = []

    async def read(self, fact: Fact, found: Snapshot) -> Snapshot:
        self.asked_for.append(fact)
        return found._replace(**{name: getattr(self.everything, name) for name in READ[fact]})

    def nothing_read(self) -> Snapshot:
        unread: dict[str, Any] = {name: None for names in READ.values() for name in names}
        return self.everything._replace(**{**unread, "running_timed_out": False})


@given(everything=complete, key=st.sampled_from([OWN, UNMODIFIED]))
async def test_reading_step_by_step_gives_the_case_of_the_whole(everything: Snapshot, key: str) -> None:
    """Facts that were not read do not change the case, and none is read twice."""
    reveals = Reveals(everything)
    case, found = await read_case(reveals, reveals.nothing_read(), key)
    assert case is classify(everything, key)
    assert len(reveals.asked_for) == len(set(reveals.asked_for))
    assert classify(found, key) is case


@given(everything=complete, key=st.sampled_from([OWN, UNMODIFIED]))
def test_answer_is_given_only_to_a_question_that_one_graph_shows(everything: Snapshot, key: str) -> None:
    """A run with the answer starts only if no other node of the step would act on its own answer again."""
    case = classify(everything, key)
    if isinstance(case, Case) and rule_of(case).action is Action.RESUME and everything.answer_known:
        assert everything.exists
        assert len(everything.shown_by or ()) == 1
        assert not everything.failed_beside
        assert not everything.unstored_beside
        assert not everything.running_beside or everything.running_timed_out


@given(everything=complete, key=st.sampled_from([OWN, UNMODIFIED]))
def test_failed_node_runs_again_only_with_permission(everything: Snapshot, key: str) -> None:
    """A node that has its answer may have acted; an operator or the retry policy may permit another run."""
    case = classify(everything, key)
    runs_on = isinstance(case, Case) and rule_of(case).action is Action.RUN_ON
    if runs_on and everything.answered and everything.stopped_in and everything.failed:
        assert everything.redriven or everything.may_retry


@given(everything=complete, key=st.sampled_from([OWN, UNMODIFIED]))
def test_only_a_wait_without_a_caller_is_orphaned(everything: Snapshot, key: str) -> None:
    """A thread that shows the question, or queues it, or has not come to it yet, is its caller."""
    case = classify(everything, key)
    if isinstance(case, Case) and rule_of(case).orphaned:
        assert not (everything.exists and everything.shown_by)
        assert not (everything.exists and not everything.answered and everything.ever_shown and everything.queued)
        assert everything.exists or everything.deleted


@pytest.mark.parametrize("case", Case)
def test_every_rule_ends_a_delivery_or_acts(case: Case) -> None:
    """A rule that acts has no error, and any other one has an error of the right type with a reason."""
    found = Snapshot(shown_by=("a", "b"), failed="node 'x' failed", hidden="refused", where="a, b", not_yet="not yet")
    types: dict[Action, type[Exception]] = {
        Action.TRY_LATER: TargetNotReady,
        Action.TRY_LATER_BUSY: TargetBusy,
        Action.REFUSE: RelayNotReady,
        Action.PARK: TargetGone,
        Action.PARK_NOT_TAKEN: TargetGone,
        Action.PARK_FAILED: TargetGone,
    }
    rule = rule_of(case)
    if rule.action not in types:
        with pytest.raises(ValueError, match=case.name):
            error_for(case, found)
        return
    error = error_for(case, found)
    assert type(error) is types[rule.action]
    assert reason_for(case, found) in str(error)
    assert reason_for(case, found)


@pytest.mark.parametrize("case", Case)
def test_wait_is_given_up_only_after_a_second_reading(case: Case) -> None:
    """A run may start and end between two reads. Facts that cannot be the result of such a race need no second one."""
    certain = {Case.DELETED, Case.RESUMED_BY_APPLICATION}
    assert rule_of(case).read_again == (rule_of(case).orphaned and case not in certain)


async def test_orphan_check_trusts_the_second_reading() -> None:
    """The thread took the answer between the two reads."""
    cases = iter([Case.SUPERSEDED, Case.ANSWERED, Case.SUPERSEDED, Case.UPDATED])

    async def read() -> tuple[Case, Snapshot]:
        return next(cases), Snapshot()

    assert await orphan_reason(read) is None
    assert "update_state" in (await orphan_reason(read) or "")


async def test_orphan_check_reports_hidden_threads() -> None:
    """A thread that the relay may not see is not given up."""

    async def read() -> tuple[Case, Snapshot]:
        return Case.HIDDEN, Snapshot(hidden="refused")

    with pytest.raises(RelayNotReady, match="refused"):
        await orphan_reason(read)
