"""Deleted tasks: when a task that the server does not know counts as deleted."""

import json
import pickle
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaithumans_core.callback import open_callback
from awaithumans_core.deleted_tasks import CONFIRM_SECONDS, READINGS, RULE, Census, Missing, Readings, Rule, Verdict
from awaithumans_core.errors import CallbackRejectedError, QuestionEndedError, TaskNotFoundError
from awaithumans_core.outcome import Outcome, settle
from awaithumans_core.route import Route, RouteSigner
from awaithumans_core.signing import SIGNATURE_HEADER, KeyRing, sign
from awaithumans_core.status import NOT_FOUND, TERMINAL, TaskStatus

GONE = Outcome(task_id="t1", status=NOT_FOUND, idempotency_key="k1")


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ([0], Verdict.UNCONFIRMED),
        ([0, 300], Verdict.UNCONFIRMED),
        ([0, 100, 299.9], Verdict.UNCONFIRMED),
        ([0, 1, 2, 3, 4], Verdict.UNCONFIRMED),
        ([0, 1, 300], Verdict.DELETED),
        ([0, 150, 300], Verdict.DELETED),
        ([0, 150, 3600], Verdict.DELETED),
    ],
)
def test_three_readings_over_five_minutes_confirm_a_deletion(times: list[float], verdict: Verdict) -> None:
    """Neither many reads in a short time nor two over a long time confirm it."""
    readings = Readings()
    assert [readings.missing("t1", at) for at in times][-1] == verdict


readings_of_one = st.lists(st.tuples(st.floats(1, 200), st.sampled_from(["present", "missing"])), max_size=40)


@given(readings_of_one)
def test_only_consecutive_404_replies_confirm_a_deletion(steps: list[tuple[float, str]]) -> None:
    """The verdict depends only on the reads since the task was last present."""
    readings, now, row = Readings(), 0.0, list[float]()
    for seconds, read in steps:
        now += seconds
        if read == "present":
            readings.present("t1", now)
            row.clear()
            continue
        row.append(now)
        confirmed = len(row) >= READINGS and now - row[0] >= CONFIRM_SECONDS
        assert readings.missing("t1", now) == (Verdict.DELETED if confirmed else Verdict.UNCONFIRMED)


@pytest.mark.parametrize(
    ("missing", "read", "doubted"),
    [(1, 1, False), (2, 2, True), (2, 3, True), (2, 4, False), (3, 5, True), (50, 100, False), (51, 100, True)],
)
def test_majority_of_missing_tasks_prevents_confirmation(missing: int, read: int, doubted: bool) -> None:  # noqa: FBT001
    """A single missing task is no majority, so a script with one question learns of its deletion."""
    assert RULE.doubted(Census(missing, read)) is doubted


def test_only_reads_within_the_period_count() -> None:
    """Tasks that were present before the first 404 do not prove that the database is unchanged."""
    readings = Readings()
    for number in range(10):
        readings.present(f"old-{number}", 50)
    for at in (100, 250):
        assert readings.missing("t1", at) == readings.missing("t2", at) == Verdict.UNCONFIRMED
    assert readings.missing("t1", 401) == Verdict.DOUBTED
    for number in range(2):
        readings.present(f"old-{number}", 402)
    assert readings.missing("t2", 403) == Verdict.DELETED


def test_clock_set_back_restarts_the_confirmation() -> None:
    """Reads that seem to come from the future confirm nothing."""
    assert Missing(5000.0, 2).again(1000.0) == Missing(1000.0, 1)
    assert not RULE.confirmed(Missing(5000.0, 9), 1000.0)


@pytest.mark.parametrize("rule", [RULE, Rule(seconds=1.0), Rule(readings=1, seconds=0.0)])
def test_planned_reads_confirm_a_deletion(rule: Rule) -> None:
    """The last planned read comes just after the required time."""
    readings = Readings(rule)
    at = 10.0
    for _ in range(rule.readings - 1):
        assert readings.missing("t1", at) == Verdict.UNCONFIRMED
        at += rule.recheck_seconds
    assert readings.missing("t1", at) == Verdict.DELETED


# --- the end as a value


def test_deleted_task_settles_as_task_not_found() -> None:
    """The error carries its facts and survives pickling."""
    with pytest.raises(TaskNotFoundError) as raised:
        settle(GONE, dict)
    error = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own
    assert isinstance(error, QuestionEndedError)
    assert (error.code, error.task_id, error.outcome) == ("TASK_NOT_FOUND", "t1", GONE)


def test_deleted_outcome_survives_json() -> None:
    """The status is terminal here, and an older release treats it as unknown and so pending."""
    read = Outcome.model_validate(json.loads(json.dumps(GONE.value())))
    assert read.terminal
    assert NOT_FOUND not in {*TERMINAL, *TaskStatus}


def test_server_cannot_report_a_deletion() -> None:
    """Neither a record nor a correctly signed callback can carry this status."""
    assert not GONE.from_server().terminal
    assert Outcome(task_id="t1", status="completed").from_server().status == "completed"
    signer, key = RouteSigner([secrets.token_urlsafe(32)]), secrets.token_bytes(32)
    token = signer.issue(Route("shelf", {}, "k1"))
    body = json.dumps(GONE.value()).encode()
    with pytest.raises(CallbackRejectedError, match="is not an answer") as refused:
        open_callback(token, {SIGNATURE_HEADER: sign(body, key)}, body, signer=signer, keys=KeyRing([key]))
    assert refused.value.http_status == 422
