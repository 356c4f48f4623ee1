"""Outcomes: how a task ended, as a value, and what that value means to the caller."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from awaithumans_core.errors import (
    AwaitHumansError,
    QuestionEndedError,
    ResponseMissingError,
    ResponseSchemaError,
    TaskCancelledError,
    TaskTimeoutError,
    VerificationExhaustedError,
)
from awaithumans_core.outcome import Outcome, at_deadline, settle
from awaithumans_core.status import TERMINAL, TaskStatus
from tests.support.decisions import Decision

ENDS = {
    "created": False,
    "notified": False,
    "assigned": False,
    "in_progress": False,
    "submitted": False,
    "verified": False,
    "rejected": False,
    "completed": True,
    "timed_out": True,
    "cancelled": True,
    "verification_exhausted": True,
}
PENDING = [status for status, ends in ENDS.items() if not ends]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
moments = st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC))
outcomes = st.builds(
    Outcome,
    task_id=st.text(),
    status=st.sampled_from([*ENDS, "escalated"]),
    idempotency_key=st.none() | st.text(),
    response=st.none() | st.dictionaries(st.text(), json_values, max_size=5),
    completed_at=moments,
    timed_out_at=moments,
    completed_by_email=st.none() | st.text(),
    completed_by_user_id=st.none() | st.text(),
    assigned_to_user_id=st.none() | st.text(),
    completed_by_display_name=st.none() | st.text(),
    completed_via_channel=st.none() | st.text(),
    verification_attempt=st.none() | st.integers(),
    created_at=moments,
    timeout_seconds=st.none() | st.integers(),
)


@dataclass
class Verdict:
    approved: bool
    reason: str = "none given"


class Ruling(TypedDict):
    approved: bool


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Card(BaseModel):
    number: Annotated[str, Field(pattern=r"^\d{4}$")] = "0000"
    amount: int = 0
    due: date = date(2026, 1, 1)
    size: Size = Size.SMALL
    colour: Literal["red", "blue"] = "red"
    tags: list[int] = []
    inner: Decision = Decision(approved=False)


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    due: date
    size: Size


def completed(**response: Any) -> Outcome:
    return Outcome(task_id="task-1", status="completed", response=response)


def test_known_statuses_are_the_documented_ones() -> None:
    """The eleven documented statuses are known, and no others."""
    assert [str(status) for status in TaskStatus] == list(ENDS)


@pytest.mark.parametrize(("status", "ends"), ENDS.items())
def test_four_statuses_are_terminal(status: str, ends: bool) -> None:  # noqa: FBT001 - a column of the table
    """Four statuses end a task, and `rejected` and `verified` are not among them."""
    assert Outcome(task_id="task-1", status=status).terminal is ends
    assert (status in TERMINAL) is ends


def test_unknown_status_is_kept_and_pending() -> None:
    """A status of a newer server is still pending."""
    outcome = Outcome(task_id="task-1", status="escalated", response={"approved": True})
    assert outcome.status == "escalated"
    assert not outcome.terminal
    assert not outcome.answered


def test_unknown_fields_are_ignored() -> None:
    """Fields of a newer server cause no error and are not kept."""
    outcome = Outcome.model_validate({"task_id": "task-1", "status": "created", "mood": "good"})
    assert outcome.value() == {"task_id": "task-1", "status": "created"}


@pytest.mark.parametrize("name", ["id", "task_id"])
def test_task_id_is_read_from_id_or_task_id(name: str) -> None:
    """Records have `id` and callbacks `task_id`, and both identify the task."""
    assert Outcome.model_validate({name: "task-1", "status": "created"}).task_id == "task-1"


@pytest.mark.parametrize("missing", ["task_id", "status"])
def test_task_and_status_are_required(missing: str) -> None:
    """A body without task or status is not an outcome."""
    body = {"task_id": "task-1", "status": "created"}
    del body[missing]
    with pytest.raises(ValidationError):
        Outcome.model_validate(body)


@pytest.mark.parametrize(
    "text", ["2026-01-02T10:00:00", "2026-01-02T10:00:00Z", "2026-01-02T11:00:00+01:00"], ids=["naive", "Z", "offset"]
)
def test_times_are_utc(text: str) -> None:
    """A callback's time without a zone means UTC and equals a poll's time with `Z`."""
    outcome = Outcome.model_validate({"task_id": "task-1", "status": "completed", "completed_at": text})
    assert outcome.completed_at == datetime(2026, 1, 2, 10, tzinfo=UTC)
    assert outcome.completed_at.tzinfo is UTC


@pytest.mark.parametrize(
    "beside",
    [
        {"completed_at": "0001-01-01T00:00:00+23:00"},
        {"timed_out_at": "9999-12-31T23:00:00-23:00"},
        {"created_at": "soon"},
        {"completed_by_email": 5},
        {"timeout_seconds": 60.5},
        {"verification_attempt": "x"},
    ],
    ids=str,
)
def test_unreadable_metadata_does_not_lose_the_answer(beside: dict[str, Any]) -> None:
    """Person and time are left out if they cannot be read, and the answer is kept."""
    outcome = Outcome.model_validate({"task_id": "task-1", "status": "completed", "response": {"a": 1}, **beside})
    assert outcome == Outcome(task_id="task-1", status="completed", response={"a": 1})


@pytest.mark.parametrize("status", [*ENDS, "escalated"])
@pytest.mark.parametrize("response", [None, {}, {"approved": True}], ids=["absent", "empty", "present"])
def test_completion_without_response_is_not_answered(status: str, response: dict[str, Any] | None) -> None:
    """`completed` without a response is not an answer, and every other end is."""
    outcome = Outcome(task_id="task-1", status=status, response=response)
    expected = ENDS.get(status, False) and not (status == "completed" and response is None)
    assert outcome.answered is expected


@given(outcomes)
def test_outcome_survives_json(outcome: Outcome) -> None:
    """Histories, checkpoints and rows return the same outcome that they were given."""
    assert Outcome.model_validate(json.loads(json.dumps(outcome.value()))) == outcome


def test_json_omits_empty_fields_except_in_the_response() -> None:
    """Unset fields are omitted, and empty fields of the response belong to the answer."""
    outcome = completed(approved=None, notes=[None, {"why": None}])
    assert outcome.value() == {
        "task_id": "task-1",
        "status": "completed",
        "response": {"approved": None, "notes": [None, {"why": None}]},
    }


def test_outcome_is_immutable() -> None:
    """An outcome cannot be changed after it was made."""
    with pytest.raises(ValidationError):
        completed(approved=False).status = "cancelled"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("timed_out", TaskTimeoutError),
        ("cancelled", TaskCancelledError),
        ("verification_exhausted", VerificationExhaustedError),
    ],
)
@pytest.mark.parametrize("response", [None, {"approved": True}], ids=["empty", "with a response"])
def test_each_end_without_answer_raises_its_error(
    status: str, error: type[QuestionEndedError], response: dict[str, Any] | None
) -> None:
    """Each of the three ends raises its own error with its facts, even if it carries a response."""
    outcome = Outcome(task_id="task-1", status=status, response=response)
    with pytest.raises(error) as raised:
        settle(outcome, Decision)
    assert type(raised.value) is error
    assert raised.value.task_id == "task-1"
    assert raised.value.outcome is outcome
    assert "task-1" in str(raised.value)


def test_exhausted_verification_error_names_the_attempts() -> None:
    """The error text contains the number of attempts if it is known."""
    outcome = Outcome(task_id="task-1", status="verification_exhausted", verification_attempt=3)
    with pytest.raises(VerificationExhaustedError, match="3 attempts"):
        settle(outcome, Decision)


@pytest.mark.parametrize("status", [*PENDING, "escalated"])
def test_pending_task_cannot_be_settled(status: str) -> None:
    """Settling too early is an error of the caller and never an answer."""
    outcome = Outcome(task_id="task-1", status=status, response={"approved": True})
    with pytest.raises(ValueError, match="has not ended") as raised:
        settle(outcome, Decision)
    assert not isinstance(raised.value, AwaitHumansError)


def test_completion_without_response_raises_response_missing() -> None:
    """A redacted answer is not taken for any decision."""
    outcome = Outcome(task_id="task-1", status="completed")
    with pytest.raises(ResponseMissingError, match="task-1") as raised:
        settle(outcome, Decision)
    assert raised.value.outcome is outcome


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (Decision, Decision(approved=True)),
        (Verdict, Verdict(approved=True)),
        (Ruling, {"approved": True}),
    ],
    ids=["pydantic model", "dataclass", "TypedDict"],
)
def test_answer_is_an_instance_of_the_response_class(schema: Any, answer: object) -> None:
    """Each supported kind of response class is returned as an instance of itself."""
    settled = settle(completed(approved=True), schema)
    assert settled == answer
    assert type(settled) is type(answer)


def test_strict_class_reads_json_values() -> None:
    """JSON has no dates and enums, so a strict response class reads their text."""
    assert settle(completed(due="2026-03-04", size="l"), Strict) == Strict(due=date(2026, 3, 4), size=Size.LARGE)


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        ({"approved": "maybe"}, "approved: "),
        ({"approved": None}, "approved: "),
        ({"approved": 2}, "approved: "),
        ({}, "approved: Field required"),
    ],
    ids=["not a bool", "null", "a number", "nothing"],
)
@pytest.mark.parametrize("schema", [Decision, Verdict, Ruling], ids=["model", "dataclass", "TypedDict"])
def test_invalid_answer_raises_response_schema_error(schema: Any, response: dict[str, Any], problem: str) -> None:
    """The server does not validate answers, so an invalid one is a typed error with its problems."""
    outcome = completed(**response)
    with pytest.raises(ResponseSchemaError) as raised:
        settle(outcome, schema)
    (only,) = raised.value.problems
    assert only.startswith(problem)
    assert only in str(raised.value)
    assert schema.__name__ in str(raised.value)
    assert raised.value.task_id == "task-1"
    assert raised.value.outcome is outcome


def test_every_problem_of_an_answer_is_named() -> None:
    """Each invalid field has a line of its own with its path."""
    with pytest.raises(ResponseSchemaError) as raised:
        settle(completed(amount="many", tags=[1, "two"], inner={"approved": "maybe"}), Card)
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["amount", "tags.1", "inner.approved"]


@pytest.mark.parametrize(
    ("schema", "response"),
    [
        (Card, {"number": "4111-1111"}),
        (Card, {"amount": "4111-1111"}),
        (Card, {"due": "4111-1111"}),
        (Card, {"size": "4111-1111"}),
        (Card, {"colour": "4111-1111"}),
        (Card, {"tags": ["4111-1111"]}),
        (Card, {"tags": "4111-1111"}),
        (Card, {"inner": {"approved": "4111-1111"}}),
        (Owner, {"pet": {"kind": "4111-1111"}}),
    ],
    ids=["pattern", "int", "date", "enum", "literal", "list item", "list", "nested", "union tag"],
)
def test_error_text_does_not_repeat_the_answer(schema: Any, response: dict[str, Any]) -> None:
    """A person's answer may be private: it is in the outcome and not in texts that are logged."""
    with pytest.raises(ResponseSchemaError) as raised:
        settle(completed(**response), schema)
    assert "4111" not in str(raised.value)
    assert "4111" not in "".join(raised.value.problems)


def test_own_cancellation_at_the_deadline_is_a_timeout() -> None:
    """A caller that closed the task at its deadline gets a timeout."""
    closed = Outcome(task_id="task-1", status="cancelled", completed_by_email="ann@example.com")
    assert at_deadline(closed) == closed.model_copy(update={"status": "timed_out"})
    assert type(at_deadline(closed).status) is str


@pytest.mark.parametrize("status", [status for status in [*ENDS, "escalated"] if status != "cancelled"])
def test_other_outcomes_are_unchanged_at_the_deadline(status: str) -> None:
    """An answer shortly before the deadline still counts, and a pending task does not become ended."""
    closed = Outcome(task_id="task-1", status=status, response={"approved": True})
    assert at_deadline(closed) == closed


def test_too_deeply_nested_response_is_left_out() -> None:
    """The task has ended, so the waiting caller learns that the answer cannot be read."""
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"in": deep}
    outcome = Outcome.model_validate({"id": "task-1", "status": "completed", "response": deep, "completed_at": None})
    assert outcome.answered
    assert Outcome.model_validate(outcome.value()) == outcome
    with pytest.raises(ResponseMissingError, match="nested too deep"):
        settle(outcome, dict)


def test_unreadable_record_is_no_outcome() -> None:
    """A record without a status is not an outcome, however deeply it is nested."""
    with pytest.raises(ValidationError):
        Outcome.model_validate({"id": "task-1", "response": {}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("completed_by_email", "x" * 2_100_000),
        ("completed_by_display_name", "x" * 2_100_000),
        ("completed_via_channel", "x" * 2_100_000),
        ("verification_attempt", 10**40),
        ("timeout_seconds", 10**40),
    ],
)
def test_metadata_that_no_engine_can_carry_is_left_out(field: str, value: object) -> None:
    """The answer is kept without such fields."""
    outcome = Outcome.model_validate(
        {"task_id": "t1", "status": "completed", "response": {"approved": True}, field: value}
    )
    assert (outcome.response, getattr(outcome, field)) == ({"approved": True}, None)
