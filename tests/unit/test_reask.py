"""Asking again: how often, under which key, with which text, and what is never asked again."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from awaithumans_core.binding import differences, parts, parts_asked
from awaithumans_core.errors import (
    AnswererNotAllowedError,
    AwaitHumansError,
    InvalidTaskError,
    ResponseMissingError,
    ResponseSchemaError,
    ServerUnreachableError,
    TaskCancelledError,
    TaskTimeoutError,
    VerificationExhaustedError,
)
from awaithumans_core.form import currency
from awaithumans_core.outcome import Outcome
from awaithumans_core.reask import LAST, ONCE_MORE, answered, answered_sync, attempts
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import AGAIN, MAX_TASK_CHARS, MIN_PROBLEMS_CHARS, REASK, HumanTask, subject


class Decision(BaseModel):
    approved: bool
    reason: str


class Refund(BaseModel):
    amount: int


GOOD: dict[str, Any] = {"approved": True, "reason": "fits"}
WRONG: dict[str, Any] = {"approved": "perhaps", "reason": "fits"}
ALSO_WRONG: dict[str, Any] = {"approved": True}


def question(**options: Any) -> HumanTask[Decision]:
    whole: dict[str, Any] = {
        "task": "Approve?",
        "response_schema": Decision,
        "idempotency_key": "refund-1",
    } | options
    return HumanTask(**whole)


def completed(response: dict[str, Any] | None, **fields: Any) -> Outcome:
    return Outcome(task_id="task-1", status="completed", response=response, **fields)


class Person:
    """A person who gives these answers in turn, repeats the last one, and records the questions."""

    def __init__(self, *ends: Outcome | AwaitHumansError) -> None:
        self.ends = list(ends)
        self.asked: list[HumanTask[Any]] = []

    def __call__(self, asked: HumanTask[Any]) -> Outcome:
        self.asked.append(asked)
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, AwaitHumansError):
            raise end
        return end

    @property
    def keys(self) -> list[str]:
        return [asked.idempotency_key for asked in self.asked]

    @property
    def texts(self) -> list[str]:
        return [asked.task for asked in self.asked]


Ask = Callable[[HumanTask[Decision], Person], tuple[Decision, Outcome]]


def in_a_loop(asked: HumanTask[Decision], person: Person) -> tuple[Decision, Outcome]:
    async def ask(question: HumanTask[Decision]) -> Outcome:
        await asyncio.sleep(0)
        return person(question)

    return asyncio.run(answered(asked, ask))


DRIVERS: dict[str, Ask] = {"async": in_a_loop, "sync": answered_sync}
either_way = pytest.mark.parametrize("ask", DRIVERS.values(), ids=DRIVERS)


# --- number of attempts


@either_way
@pytest.mark.parametrize("max_reasks", [0, 1, 5])
def test_valid_answer_is_asked_once(ask: Ask, max_reasks: int) -> None:
    """The typed answer is returned with its outcome, and the question is not repeated."""
    person, asked = Person(completed(GOOD)), question(max_reasks=max_reasks)
    assert ask(asked, person) == (Decision(approved=True, reason="fits"), completed(GOOD))
    assert person.asked == [asked]


@either_way
def test_invalid_answer_without_max_reasks_is_an_error(ask: Ask) -> None:
    """Without max_reasks an invalid answer raises its error at once."""
    person = Person(completed(WRONG))
    with pytest.raises(ResponseSchemaError) as raised:
        ask(question(), person)
    assert raised.value.outcome == completed(WRONG)
    assert len(person.asked) == 1


@either_way
@pytest.mark.parametrize("max_reasks", [1, 2, 7])
def test_max_reasks_limits_repeated_questions(ask: Ask, max_reasks: int) -> None:
    """If no answer is valid, the last one raises its error after exactly max_reasks more questions."""
    wrong = [completed(WRONG, verification_attempt=number) for number in range(max_reasks + 1)]
    person = Person(*wrong)
    with pytest.raises(ResponseSchemaError) as raised:
        ask(question(max_reasks=max_reasks), person)
    assert raised.value.outcome == wrong[-1]
    assert len(person.asked) == 1 + max_reasks


@either_way
@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_first_valid_answer_is_returned(ask: Ask, wrong: int) -> None:
    """The answer to a repeated question is returned with its own outcome."""
    good = completed(GOOD, completed_by_email="ann@example.com")
    person = Person(*[completed(WRONG)] * wrong, good)
    assert ask(question(max_reasks=3), person) == (Decision(approved=True, reason="fits"), good)
    assert len(person.asked) == wrong + 1


@pytest.mark.parametrize("max_reasks", [-1, -100])
def test_negative_max_reasks_is_refused(max_reasks: int) -> None:
    """A negative number is refused before anything is sent."""
    with pytest.raises(InvalidTaskError, match=f"max_reasks is {max_reasks}"):
        question(max_reasks=max_reasks)


# --- keys


@either_way
def test_keys_of_attempts_derive_from_the_first(ask: Ask) -> None:
    """The keys are numbered and all derive from the key of the question."""
    person = Person(completed(WRONG), completed(ALSO_WRONG), completed(WRONG), completed(GOOD))
    ask(question(max_reasks=3), person)
    assert person.keys == ["refund-1", "refund-1:reask:1", "refund-1:reask:2", "refund-1:reask:3"]


@either_way
def test_keys_derive_from_the_key_in_the_outcome(ask: Ask) -> None:
    """An engine may have set the key itself, so the outcome knows it and the question does not."""
    person = Person(completed(WRONG, idempotency_key="node:7"), completed(WRONG), completed(GOOD))
    ask(question(max_reasks=2), person)
    assert person.keys == ["refund-1", "node:7:reask:1", "node:7:reask:2"]


@either_way
def test_keys_do_not_grow_with_each_attempt(ask: Ask) -> None:
    """Only the first outcome carries the original key, and later ones carry derived keys."""
    outcomes = [completed(WRONG, idempotency_key=f"node:7{end}") for end in ["", ":reask:1", ":reask:2"]]
    person = Person(*outcomes, completed(GOOD))
    ask(question(max_reasks=3), person)
    assert person.keys[1:] == ["node:7:reask:1", "node:7:reask:2", "node:7:reask:3"]


def test_repeated_call_finds_the_same_tasks() -> None:
    """On replay or after a restart the same answers lead to the same tasks in the same order."""
    outcomes = [completed(WRONG), completed(ALSO_WRONG), completed(GOOD)]
    first, second = Person(*outcomes), Person(*outcomes)
    assert answered_sync(question(max_reasks=2), first) == answered_sync(question(max_reasks=2), second)
    assert [asked.body() for asked in first.asked] == [asked.body() for asked in second.asked]


# --- texts


@either_way
def test_repeated_question_describes_the_problem(ask: Ask) -> None:
    """The original question is followed by the field and its problem."""
    person = Person(completed(WRONG), completed(GOOD))
    ask(question(max_reasks=1), person)
    text = person.texts[1]
    assert text.startswith("Approve? (asked again, as the answer given does not fit: Approved: ")
    assert "valid boolean" in text
    assert text.endswith(f". {LAST})")


def test_repeated_question_names_every_problem() -> None:
    """All problems are named at once, so that one more question is enough."""
    person = Person(completed({"approved": "perhaps"}), completed(GOOD))
    answered_sync(question(max_reasks=1), person)
    assert "Approved: " in person.texts[1]
    assert "; Reason: nothing was entered" in person.texts[1]


def test_repeated_question_describes_the_last_answer_only() -> None:
    """A third attempt does not contain the text that the second one added."""
    person = Person(completed(WRONG), completed(ALSO_WRONG), completed(GOOD))
    answered_sync(question(max_reasks=2), person)
    assert person.texts[1].endswith(f". {ONCE_MORE})")
    assert person.texts[2] == f"Approve?{AGAIN}Reason: nothing was entered. {LAST})"


def test_repeated_question_uses_the_labels_of_the_form() -> None:
    """A person knows the label of an input, not its name, and counts the entries of a list from 1."""

    class Line(BaseModel):
        unit_price: int

    class Budget(BaseModel):
        amount: Annotated[Decimal, currency("EUR")] = Field(title="Budget")
        lines: list[Line]

    person = Person(
        completed({"amount": None, "lines": '[{"unit_price": 1}, {"unit_price": "1,000"}]'}),
        completed({"amount": "5", "lines": "[]"}),
    )
    answered_sync(question(response_schema=Budget), person)
    assert person.texts[1] == (
        f"Approve?{AGAIN}Lines [2] Unit price: write 1234 (a comma or a point before three digits has two readings); "
        f"Budget (EUR): nothing was entered. {LAST})"
    )


def test_long_list_of_problems_is_shortened() -> None:
    """The question stays readable, however many problems there are."""
    fields: dict[str, Any] = {f"field_{number}": (int, ...) for number in range(200)}
    many = create_model("Many", **fields)
    person = Person(completed({}), completed({f"field_{number}": 1 for number in range(200)}))
    answered_sync(question(response_schema=many, max_reasks=1), person)
    again = person.texts[1]
    assert again.startswith(f"Approve?{AGAIN}Field 0: nothing was entered; Field 1: ")
    assert again.endswith(f"…. {LAST})")
    assert len(again) == MAX_TASK_CHARS


ROOM = MAX_TASK_CHARS - len(f"Approve?{AGAIN})")


@pytest.mark.parametrize(
    ("length", "shown"),
    [(ROOM, "x" * ROOM), (ROOM + 1, "x" * (ROOM - 1) + "…")],
    ids=["what just fits", "one letter more"],
)
def test_text_within_the_limit_is_not_shortened(length: int, shown: str) -> None:
    """A text is shortened at the limit only, and visibly."""
    assert question().again("again", ["x" * length]).task == f"Approve?{AGAIN}{shown})"


def test_long_question_is_shortened_when_repeated() -> None:
    """The longest allowed question can be repeated, because it leaves room for the problems."""
    again = question(task="q" * MAX_TASK_CHARS).again("again", ["x" * MAX_TASK_CHARS]).task
    assert len(again) == MAX_TASK_CHARS
    assert again.startswith("qqq")
    assert again.endswith(f"…{AGAIN}{'x' * (MIN_PROBLEMS_CHARS - 1)}…)")


def test_control_characters_in_problems_are_escaped() -> None:
    """A problem may quote the answer, so it is shown in one line with visible escapes."""
    assert question().again("again", ["a\x1b[2J\nb\u202e"]).task == rf"Approve?{AGAIN}a\x1b[2J\nb\u202e)"


# --- unchanged parts


FULL: dict[str, Any] = {
    "payload": Refund(amount=250),
    "payload_schema": Refund,
    "timeout_seconds": timedelta(hours=3),
    "assign_to": "ann@example.com",
    "notify": ["slack:#refunds"],
    "verifier": {"provider": "none"},
    "redact_payload": True,
    "task_metadata": {"tier": "gold"},
    "form": {"fields": [{"name": "approved", "kind": "switch", "label": "Approved", "required": True}]},
    "max_reasks": 2,
}
"""Every option of a question except its text and key."""


@pytest.mark.parametrize("options", [{"max_reasks": 2}, FULL], ids=["plain", "with every option"])
def test_repeated_question_keeps_all_other_options(options: dict[str, Any]) -> None:
    """Only text and key differ, so the person has the whole time again."""
    asked, person = question(**options), Person(completed(WRONG), completed(ALSO_WRONG), completed(GOOD))
    answered_sync(asked, person)
    assert len(person.asked) == 3
    for again in person.asked[1:]:
        assert replace(again, task=asked.task, idempotency_key=asked.idempotency_key, reask=None) == asked
        changed = {name for name, value in again.body().items() if value != asked.body()[name]}
        assert changed == {"task", "idempotency_key", "payload_schema"}
        assert {name: value for name, value in again.body()["payload_schema"].items() if name != REASK} == (
            asked.body()["payload_schema"]
        )


def test_max_reasks_is_not_sent_to_the_server() -> None:
    """The number of attempts is a rule of the caller and not a field of a task."""
    assert question(max_reasks=3).body() == question().body()


texts = st.text(min_size=1).map(lambda text: one_line(text, 300)).filter(str.strip)
wordings = texts | texts.map(lambda text: f"{text} (asked again, as the answer given does not fit: that)")


@given(
    text=wordings,
    payload=st.none() | st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
    problems=st.lists(st.lists(wordings | st.text(), max_size=3), min_size=1, max_size=3),
)
def test_repeated_question_is_recognised_as_the_same(
    text: str, payload: dict[str, Any] | None, problems: list[list[str]]
) -> None:
    """The server's task of a repeated question is recognised with a payload and without."""
    asked = question(task=text, payload=payload)
    for number, wrong in enumerate(problems):
        assert subject(asked.again(f"key:{number}", wrong).body()) == subject(asked.body())


def test_different_repeated_question_is_not_recognised() -> None:
    """Repeating hides no difference between questions."""
    one, other = question(task="Approve A?"), question(task="Approve B?")
    assert subject(one.again("key", ["wrong"]).body()) != subject(other.again("key", ["wrong"]).body())


@given(text=wordings, other=wordings, problems=st.lists(wordings | st.text(), max_size=3))
def test_text_alone_does_not_mark_a_repeated_question(text: str, other: str, problems: list[str]) -> None:
    """Questions with different texts differ, even if one looks like a repetition of the other."""
    one, two = (parts_asked(question(task=task).body()) for task in (text, other))
    assert bool(differences(one, two)) is (text != other)
    again = question(task=text).again("key:reask:1", problems)
    disguised = question(task=again.task)
    assert not differences(parts_asked(disguised.body()), parts_asked(again.body()))  # literally the same text
    assert differences(parts_asked(disguised.body()), one)


def test_repeated_question_is_recognised_with_another_wording() -> None:
    """Another release may word the problem differently, so number and first text identify the repetition."""
    first, later = (question().again("key:reask:1", [wrong]) for wrong in ("approved: wrong", "approved: not a bool"))
    second = later.again("key:reask:2", ["approved: wrong"])
    other = question(task="Approve something else?").again("key:reask:1", ["approved: wrong"])
    assert not differences(parts_asked(first.body()), parts_asked(later.body()))
    assert differences(parts_asked(second.body()), parts_asked(later.body())) == ("task",)
    assert differences(parts_asked(other.body()), parts_asked(first.body())) == ("task",)


def test_repeated_question_of_earlier_release_is_recognised_by_text() -> None:
    """A record without annotation is the same repetition only if its text is the same."""
    again = question().again("key:reask:1", ["approved: wrong"])
    record = again.body() | {"payload_schema": {"type": "object"}}
    assert not differences(parts_asked(again.body()), parts(record))
    assert differences(parts_asked(again.body()), parts(record | {"task": f"{again.task} And more?"})) == ("task",)


def test_reserved_annotations_are_refused() -> None:
    """The annotations for repetitions and for the caller are refused in a given payload schema."""
    mark = question().again("key", ["wrong"]).body()["payload_schema"]
    with pytest.raises(InvalidTaskError, match=REASK):
        question(payload_schema=mark)


# --- ends that are not asked again


OTHER_ENDS: dict[str, tuple[Outcome, type[AwaitHumansError]]] = {
    "timed out": (Outcome(task_id="task-1", status="timed_out"), TaskTimeoutError),
    "cancelled": (Outcome(task_id="task-1", status="cancelled"), TaskCancelledError),
    "no answer that passes": (
        Outcome(task_id="task-1", status="verification_exhausted", response=WRONG),
        VerificationExhaustedError,
    ),
    "erased": (completed(None), ResponseMissingError),
}
every_other_end = pytest.mark.parametrize(("end", "kind"), OTHER_ENDS.values(), ids=OTHER_ENDS)


@either_way
@every_other_end
def test_other_ends_are_not_asked_again(ask: Ask, end: Outcome, kind: type[AwaitHumansError]) -> None:
    """A question without an answer, or with an unknown answer, is not repeated."""
    person = Person(end)
    with pytest.raises(kind):
        ask(question(max_reasks=3), person)
    assert len(person.asked) == 1


@either_way
@every_other_end
def test_other_ends_of_a_repeated_question_are_final(ask: Ask, end: Outcome, kind: type[AwaitHumansError]) -> None:
    """The remaining attempts of max_reasks are for invalid answers only."""
    person = Person(completed(WRONG), end)
    with pytest.raises(kind):
        ask(question(max_reasks=3), person)
    assert len(person.asked) == 2


@either_way
@pytest.mark.parametrize("before", [[], [completed(WRONG)]], ids=["the question", "the repeated question"])
def test_error_while_asking_is_raised(ask: Ask, before: list[Outcome]) -> None:
    """An unreachable server is not an invalid answer."""
    away = ServerUnreachableError("away")
    ends: list[Outcome | AwaitHumansError] = [*before, away]
    person = Person(*ends)
    with pytest.raises(ServerUnreachableError) as raised:
        ask(question(max_reasks=3), person)
    assert raised.value is away
    assert len(person.asked) == len(before) + 1


def test_attempts_can_be_driven_step_by_step() -> None:
    """An engine with its own way of waiting asks what is yielded and sends back the outcome."""
    steps = attempts(question(max_reasks=1))
    assert next(steps).idempotency_key == "refund-1"
    assert steps.send(completed(WRONG)).idempotency_key == "refund-1:reask:1"
    with pytest.raises(StopIteration) as end:
        steps.send(completed(GOOD))
    assert end.value.value == (Decision(approved=True, reason="fits"), completed(GOOD))


# --- without max_reasks


@either_way
@pytest.mark.parametrize("typed", ["1,234", "many", None], ids=["two readings", "no reading", "blank"])
def test_person_who_mistypes_is_asked_again_once(ask: Any, typed: str | None) -> None:
    """A field that people type has one re-ask by default, which says what to write."""
    person = Person(completed({"amount": typed}), completed({"amount": "1234"}))
    answer, _ = ask(question(response_schema=Refund), person)
    assert answer == Refund(amount=1234)
    assert person.keys == ["refund-1", "refund-1:reask:1"]
    with pytest.raises(ResponseSchemaError) as raised:
        ask(question(response_schema=Refund), Person(completed({"amount": typed})))
    assert raised.value.refused_fields == ("amount",)


@either_way
def test_caller_who_wants_no_re_ask_has_none(ask: Any) -> None:
    """`max_reasks=0` means what it says."""
    person = Person(completed({"amount": "many"}))
    with pytest.raises(ResponseSchemaError):
        ask(question(response_schema=Refund, max_reasks=0), person)
    assert len(person.asked) == 1


@either_way
@pytest.mark.parametrize("response", [{"amount": "5", "approved": "perhaps"}, {"amount": "5", "other": 1}])
def test_mistake_in_a_field_that_is_not_typed_is_an_error_at_once(ask: Any, response: dict[str, Any]) -> None:
    """The default re-ask is for what people mistype, not for answers that are wrong in another way."""
    schema = create_model("Answer", amount=(int, ...), approved=(bool, False))
    person = Person(completed(response))
    with pytest.raises(ResponseSchemaError):
        ask(question(response_schema=schema), person)
    assert len(person.asked) == 1


@either_way
def test_person_who_is_not_accepted_does_not_use_the_default_re_ask(ask: Any) -> None:
    """A mistyped answer, and then that of a person who is not accepted, end the question."""
    person = Person(
        completed({"amount": "many"}, completed_by_email="ann@example.com"),
        completed({"amount": "5"}, completed_by_email="bob@example.com"),
    )
    with pytest.raises(AnswererNotAllowedError):
        ask(question(response_schema=Refund, not_by="bob@example.com"), person)
    assert len(person.asked) == 2
