"""When a task that the server does not know counts as deleted."""

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
    """Neither many readings in a short time nor two over a long one do."""
    readings = Readings()
    assert [readings.missing("t1", at) for at in times][-1] == verdict


readings_of_one = st.lists(st.tuples(st.floats(1, 200), st.sampled_from(["present", "missing"])), max_size=40)


@given(readings_of_one)
def test_whatever_is_read_a_deletion_follows_a_row_of_404(steps: list[tuple[float, str]]) -> None:
    """The verdict depends on the readings since the task was last there, and on nothing before."""
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
def test_two_missing_tasks_and_more_than_half_are_a_doubt(missing: int, read: int, doubted: bool) -> None:  # noqa: FBT001
    """One missing task of one is none: a script with a single question learns of its deletion."""
    assert RULE.doubted(Census(missing, read)) is doubted


def test_only_what_was_read_in_that_time_counts() -> None:
    """Tasks that were there before the first 404 do not show that the database is still the same."""
    readings = Readings()
    for number in range(10):
        readings.present(f"old-{number}", 50)
    for at in (100, 250):
        assert readings.missing("t1", at) == readings.missing("t2", at) == Verdict.UNCONFIRMED
    assert readings.missing("t1", 401) == Verdict.DOUBTED
    for number in range(2):
        readings.present(f"old-{number}", 402)
    assert readings.missing("t2", 403) == Verdict.DELETED


def test_a_clock_that_is_set_back_begins_the_row_again() -> None:
    """Readings that seem to come from the future confirm nothing."""
    assert Missing(5000.0, 2).again(1000.0) == Missing(1000.0, 1)
    assert not RULE.confirmed(Missing(5000.0, 9), 1000.0)


@pytest.mark.parametrize("rule", [RULE, Rule(seconds=1.0), Rule(readings=1, seconds=0.0)])
def test_readings_at_the_planned_times_confirm(rule: Rule) -> None:
    """The last reading that is planned comes just after the time is over."""
    readings = Readings(rule)
    at = 10.0
    for _ in range(rule.readings - 1):
        assert readings.missing("t1", at) == Verdict.UNCONFIRMED
        at += rule.recheck_seconds
    assert readings.missing("t1", at) == Verdict.DELETED


# --- the end as a value


def test_the_end_settles_as_task_not_found() -> None:
    """An end without an answer, with its facts, and it survives the way to another process."""
    with pytest.raises(TaskNotFoundError) as raised:
        settle(GONE, dict)
    error = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own
    assert isinstance(error, QuestionEndedError)
    assert (error.code, error.task_id, error.outcome) == ("TASK_NOT_FOUND", "t1", GONE)


def test_the_end_crosses_walls_as_json() -> None:
    """Terminal here; an older release reads an unknown status, which is pending."""
    read = Outcome.model_validate(json.loads(json.dumps(GONE.value())))
    assert read.terminal
    assert NOT_FOUND not in {*TERMINAL, *TaskStatus}


def test_a_server_cannot_say_so() -> None:
    """Neither a record nor a callback body, however well it is signed."""
    assert not GONE.from_server().terminal
    assert Outcome(task_id="t1", status="completed").from_server().status == "completed"
    signer, key = RouteSigner([secrets.token_urlsafe(32)]), secrets.token_bytes(32)
    token = signer.issue(Route("shelf", {}, "k1"))
    body = json.dumps(GONE.value()).encode()
    with pytest.raises(CallbackRejectedError, match="is not an answer") as refused:
        open_callback(token, {SIGNATURE_HEADER: sign(body, key)}, body, signer=signer, keys=KeyRing([key]))
    assert refused.value.http_status == 422
