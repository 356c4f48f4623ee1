"""How a task ended, as a value, and what that value means to the asker."""

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


def test_the_statuses_are_these() -> None:
    """The eleven documented statuses, and no other, are known."""
    assert [str(status) for status in TaskStatus] == list(ENDS)


@pytest.mark.parametrize(("status", "ends"), ENDS.items())
def test_a_status_ends_a_task_or_not(status: str, ends: bool) -> None:  # noqa: FBT001 - a column of the table
    """Four statuses are the end of a task; `rejected` and `verified` are not among them."""
    assert Outcome(task_id="task-1", status=status).terminal is ends
    assert (status in TERMINAL) is ends


def test_an_unknown_status_is_kept_and_ends_nothing() -> None:
    """A status of a newer server is still pending."""
    outcome = Outcome(task_id="task-1", status="escalated", response={"approved": True})
    assert outcome.status == "escalated"
    assert not outcome.terminal
    assert not outcome.answered


def test_unknown_fields_are_ignored() -> None:
    """A newer server may say more; nothing breaks, and nothing unknown is carried along."""
    outcome = Outcome.model_validate({"task_id": "task-1", "status": "created", "mood": "good"})
    assert outcome.value() == {"task_id": "task-1", "status": "created"}


@pytest.mark.parametrize("name", ["id", "task_id"])
def test_a_task_goes_by_either_name(name: str) -> None:
    """Records say `id`, callbacks `task_id`; both are the task."""
    assert Outcome.model_validate({name: "task-1", "status": "created"}).task_id == "task-1"


@pytest.mark.parametrize("missing", ["task_id", "status"])
def test_task_and_status_are_needed(missing: str) -> None:
    """What says not which task, or not how it stands, is not an outcome."""
    body = {"task_id": "task-1", "status": "created"}
    del body[missing]
    with pytest.raises(ValidationError):
        Outcome.model_validate(body)


@pytest.mark.parametrize(
    "text", ["2026-01-02T10:00:00", "2026-01-02T10:00:00Z", "2026-01-02T11:00:00+01:00"], ids=["naive", "Z", "offset"]
)
def test_moments_are_utc(text: str) -> None:
    """A callback's naive time means UTC, as the same moment in a poll reply with its `Z` does."""
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
def test_what_stands_beside_the_answer_does_not_stand_in_its_way(beside: dict[str, Any]) -> None:
    """Who and when are left out where they cannot be read; the answer stays."""
    outcome = Outcome.model_validate({"task_id": "task-1", "status": "completed", "response": {"a": 1}, **beside})
    assert outcome == Outcome(task_id="task-1", status="completed", response={"a": 1})


@pytest.mark.parametrize("status", [*ENDS, "escalated"])
@pytest.mark.parametrize("response", [None, {}, {"approved": True}], ids=["absent", "empty", "present"])
def test_answered_is_any_end_but_a_completion_without_response(status: str, response: dict[str, Any] | None) -> None:
    """`completed` without a response is not an answer; every other end is one to hand over."""
    outcome = Outcome(task_id="task-1", status=status, response=response)
    expected = ENDS.get(status, False) and not (status == "completed" and response is None)
    assert outcome.answered is expected


@given(outcomes)
def test_a_value_comes_back_through_json_as_it_was(outcome: Outcome) -> None:
    """Histories, checkpoints and rows give back the very outcome they were given."""
    assert Outcome.model_validate(json.loads(json.dumps(outcome.value()))) == outcome


def test_a_value_has_no_empty_fields_but_the_persons() -> None:
    """Fields nobody filled stay out; what the person left empty is part of the answer."""
    outcome = completed(approved=None, notes=[None, {"why": None}])
    assert outcome.value() == {
        "task_id": "task-1",
        "status": "completed",
        "response": {"approved": None, "notes": [None, {"why": None}]},
    }


def test_an_outcome_does_not_change() -> None:
    """An outcome is a value: nobody rewrites an answer in passing."""
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
def test_an_end_without_an_answer_is_its_typed_error(
    status: str, error: type[QuestionEndedError], response: dict[str, Any] | None
) -> None:
    """Each of the three ends raises its own error with its facts, even if a response lies beside it."""
    outcome = Outcome(task_id="task-1", status=status, response=response)
    with pytest.raises(error) as raised:
        settle(outcome, Decision)
    assert type(raised.value) is error
    assert raised.value.task_id == "task-1"
    assert raised.value.outcome is outcome
    assert "task-1" in str(raised.value)


def test_an_exhausted_verification_says_how_many_attempts_it_took() -> None:
    """The number of attempts, where it is known, is in the text."""
    outcome = Outcome(task_id="task-1", status="verification_exhausted", verification_attempt=3)
    with pytest.raises(VerificationExhaustedError, match="3 attempts"):
        settle(outcome, Decision)


@pytest.mark.parametrize("status", [*PENDING, "escalated"])
def test_what_has_not_ended_cannot_be_settled(status: str) -> None:
    """Settling too early is the caller's mistake, and never an answer."""
    outcome = Outcome(task_id="task-1", status=status, response={"approved": True})
    with pytest.raises(ValueError, match="has not ended") as raised:
        settle(outcome, Decision)
    assert not isinstance(raised.value, AwaitHumansError)


def test_a_completion_without_response_is_a_missing_answer() -> None:
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
def test_an_answer_is_an_instance_of_the_response_class(schema: Any, answer: object) -> None:
    """Each kind of response class that is offered comes back as itself."""
    settled = settle(completed(approved=True), schema)
    assert settled == answer
    assert type(settled) is type(answer)


def test_a_strict_class_reads_what_json_can_say() -> None:
    """JSON has no dates and no enums: a strict response class takes their text as it does from any JSON."""
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
def test_an_answer_in_another_shape_is_no_answer(schema: Any, response: dict[str, Any], problem: str) -> None:
    """The server does not check answers; what does not fit is a typed error with its problems, never a decision."""
    outcome = completed(**response)
    with pytest.raises(ResponseSchemaError) as raised:
        settle(outcome, schema)
    (only,) = raised.value.problems
    assert only.startswith(problem)
    assert only in str(raised.value)
    assert schema.__name__ in str(raised.value)
    assert raised.value.task_id == "task-1"
    assert raised.value.outcome is outcome


def test_every_problem_is_named() -> None:
    """Each field that does not fit is a line of its own, with the way to it."""
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
def test_the_text_of_an_error_does_not_repeat_the_answer(schema: Any, response: dict[str, Any]) -> None:
    """What a person typed may be anybody's data: it is in the outcome, and not in texts that are logged."""
    with pytest.raises(ResponseSchemaError) as raised:
        settle(completed(**response), schema)
    assert "4111" not in str(raised.value)
    assert "4111" not in "".join(raised.value.problems)


def test_our_own_cancelling_at_the_deadline_is_a_timeout() -> None:
    """The asker who closed the task at its deadline hears that nobody answered."""
    closed = Outcome(task_id="task-1", status="cancelled", completed_by_email="ann@example.com")
    assert at_deadline(closed) == closed.model_copy(update={"status": "timed_out"})
    assert type(at_deadline(closed).status) is str


@pytest.mark.parametrize("status", [status for status in [*ENDS, "escalated"] if status != "cancelled"])
def test_any_other_end_stands_at_the_deadline(status: str) -> None:
    """An answer given just before still counts, and a pending task does not become an end."""
    closed = Outcome(task_id="task-1", status=status, response={"approved": True})
    assert at_deadline(closed) == closed


def test_a_response_too_deep_to_be_read_is_left_out() -> None:
    """The task has ended all the same: whoever waits for it is told that the answer cannot be had here."""
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"in": deep}
    outcome = Outcome.model_validate({"id": "task-1", "status": "completed", "response": deep, "completed_at": None})
    assert outcome.answered
    assert Outcome.model_validate(outcome.value()) == outcome
    with pytest.raises(ResponseMissingError, match="nested too deep"):
        settle(outcome, dict)


def test_what_else_cannot_be_read_is_no_outcome() -> None:
    """A record without a status is none, however deep it is."""
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
def test_what_stands_beside_the_answer_and_no_engine_could_carry_is_left_out(field: str, value: object) -> None:
    """The answer arrives all the same."""
    outcome = Outcome.model_validate(
        {"task_id": "t1", "status": "completed", "response": {"approved": True}, field: value}
    )
    assert (outcome.response, getattr(outcome, field)) == ({"approved": True}, None)
