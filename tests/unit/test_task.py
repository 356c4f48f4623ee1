"""Questions: what is refused before anything is sent, and what is sent to the server."""

import json
import math
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import FrozenInstanceError, dataclass
from datetime import date, timedelta
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PrivateAttr, RootModel, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import from_json

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import MAX_TASK_CHARS, HumanTask, subject
from tests.support.decisions import Decision

MONTH = 30 * 24 * 3600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Refund(BaseModel):
    amount: int
    due: date


@dataclass
class Trip:
    city: str


class Plain:
    """A class without fields that a person could fill in."""


class Uncallable(BaseModel):
    what: Callable[[], int]


class Open(BaseModel, extra="allow"):
    """A class that accepts unknown fields."""


class Typed(TypedDict):
    approved: bool


def ask(**options: Any) -> HumanTask[Any]:
    whole: dict[str, Any] = {"task": "Approve?", "response_schema": Decision} | options
    return HumanTask(**whole)


def circle() -> dict[str, Any]:
    around: dict[str, Any] = {}
    around["around"] = around
    return around


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (60, 60),
        (59.2, 60),
        (60.0, 60),
        (900.001, 901),
        (MONTH, MONTH),
        (timedelta(minutes=1), 60),
        (timedelta(seconds=90, milliseconds=1), 91),
        (timedelta(days=30), MONTH),
    ],
    ids=str,
)
def test_timeout_is_rounded_up_to_whole_seconds(given: float | timedelta, seconds: int) -> None:
    """A timeout is seconds or a timedelta from a minute to 30 days, and is never shortened."""
    assert ask(timeout_seconds=given).seconds == seconds
    assert ask(timeout_seconds=given).body()["timeout_seconds"] == seconds


@pytest.mark.parametrize(
    "given",
    [0, -900, 59, 59.0, MONTH + 1, MONTH + 0.1, timedelta(seconds=59), timedelta(days=30, seconds=1)],
    ids=str,
)
def test_timeout_outside_the_server_limits_is_refused(given: float | timedelta) -> None:
    """The caller gets the error before anything is sent, instead of a 422."""
    with pytest.raises(InvalidTaskError, match=r"60 \(a minute\) to 2592000 \(30 days\)"):
        ask(timeout_seconds=given)


@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf], ids=str)
def test_infinite_timeout_is_refused(given: float) -> None:
    """Infinity and NaN are not timeouts."""
    with pytest.raises(InvalidTaskError, match="finite"):
        ask(timeout_seconds=given)


@pytest.mark.parametrize("text", ["", " ", "\n\t"], ids=repr)
def test_empty_question_is_refused(text: str) -> None:
    """A question needs a text."""
    with pytest.raises(InvalidTaskError, match="task is empty"):
        ask(task=text)


@pytest.mark.parametrize("key", ["", " ", "\n\t"], ids=repr)
def test_empty_key_is_refused(key: str) -> None:
    """All callers that pass an empty key would share one task."""
    with pytest.raises(InvalidTaskError, match="idempotency_key is empty"):
        ask(idempotency_key=key)


def test_default_keys_are_unique() -> None:
    """By default two questions never share a task, however similar they are."""
    assert len({ask().idempotency_key for _ in range(100)}) == 100


def test_key_of_a_question_is_constant() -> None:
    """A question has the same key in every body made of it."""
    task = ask()
    assert task.body()["idempotency_key"] == task.idempotency_key == task.body()["idempotency_key"]


def test_human_task_is_immutable() -> None:
    """A validated question cannot be changed."""
    with pytest.raises(FrozenInstanceError):
        ask().task = "Approve everything?"  # type: ignore[misc]


class Counted(BaseModel):
    """A payload that counts how often it is written as JSON."""

    amount: int
    _written: list[int] = PrivateAttr(default_factory=list[int])

    @model_serializer(mode="wrap")
    def write(self, handler: SerializerFunctionWrapHandler) -> Any:
        self._written.append(self.amount)
        return handler(self)

    def times_written(self) -> int:
        return len(self._written)


def test_a_request_is_built_once() -> None:
    """The body of a question is built when the question is made, and not again for each use or another key."""
    payload = Counted(amount=250)
    task = ask(payload=payload)
    bodies = [task.body(), task.body(), task.under("question-2").body()]
    assert [body["payload"] for body in bodies] == [{"amount": 250}] * 3
    assert [body["idempotency_key"] for body in bodies] == [task.idempotency_key, task.idempotency_key, "question-2"]
    assert payload.times_written() == 1


def test_a_body_does_not_follow_changes_of_the_payload() -> None:
    """What is sent is what was checked, whatever the caller does to the payload or to another body afterwards."""
    payload = {"amount": 250}
    task = ask(payload=payload)
    payload["amount"] = 900
    task.body()["payload"]["amount"] = 900
    assert task.body()["payload"] == {"amount": 250}


def test_minimal_body() -> None:
    """Unset options are not sent, and the form always is."""
    assert ask(idempotency_key="question-1").body() == {
        "task": "Approve?",
        "payload": {},
        "payload_schema": {"type": "object"},
        "response_schema": {
            "properties": {"approved": {"type": "boolean"}},
            "required": ["approved"],
            "title": "Decision",
            "type": "object",
        },
        "form_definition": {
            "version": 1,
            "fields": [
                {
                    "name": "approved",
                    "label": "Approved",
                    "required": True,
                    "kind": "switch",
                    "true_label": "Yes",
                    "false_label": "No",
                }
            ],
        },
        "timeout_seconds": 86400,
        "idempotency_key": "question-1",
    }


def test_full_body() -> None:
    """Every option is sent under the server's name for it."""
    task = ask(
        payload={"amount": 250},
        payload_schema=Refund,
        timeout_seconds=120,
        idempotency_key="question-1",
        assign_to={"pool": "refunds"},
        notify=("slack:#refunds",),
        verifier={"max_attempts": 3},
        redact_payload=True,
        task_metadata={"customer": "Ada"},
    )
    plain = ask(
        timeout_seconds=120, idempotency_key="question-1", payload={"amount": 250}, payload_schema=Refund
    ).body()
    assert task.body() == plain | {
        "assign_to": {"pool": "refunds"},
        "notify": ["slack:#refunds"],
        "verifier_config": {"max_attempts": 3},
        "redact_payload": True,
        "task_metadata": {"customer": "Ada"},
    }


def test_plain_assignee_is_an_address() -> None:
    """A plain string is an e-mail address."""
    assert ask(assign_to="ann@example.com").body()["assign_to"] == {"email": "ann@example.com"}


def test_given_form_replaces_the_derived_one() -> None:
    """The reviewer sees the caller's own form."""
    form = {"version": 1, "fields": [{"name": "approved", "kind": "switch", "label": "Go?", "required": True}]}
    assert ask(form=form).body()["form_definition"] == form


def test_verifier_may_be_a_model() -> None:
    """A typed verifier is sent as an object."""
    assert ask(verifier=Decision(approved=True)).body()["verifier_config"] == {"approved": True}


@pytest.mark.parametrize(
    ("payload", "sent", "titles"),
    [
        (None, {}, None),
        ({"amount": 1, "due": date(2026, 1, 2)}, {"amount": 1, "due": "2026-01-02"}, None),
        (Refund(amount=1, due=date(2026, 1, 2)), {"amount": 1, "due": "2026-01-02"}, "Refund"),
        (Trip("Oslo"), {"city": "Oslo"}, "Trip"),
    ],
    ids=["nothing", "mapping", "model", "dataclass"],
)
def test_payload_is_sent_with_its_schema(payload: Any, sent: dict[str, Any], titles: str | None) -> None:
    """Models, dataclasses and mappings become JSON objects, and a class adds its schema."""
    body = ask(payload=payload).body()
    assert body["payload"] == sent
    assert body["payload_schema"].get("title") == titles
    assert body["payload_schema"]["type"] == "object"


@pytest.mark.parametrize(
    ("schema", "title"), [(Refund, "Refund"), ({"title": "Mine", "type": "object"}, "Mine")], ids=["class", "mapping"]
)
def test_payload_schema_can_be_given(schema: Any, title: str) -> None:
    """A mapping can name its class or bring a JSON Schema."""
    assert ask(payload={"amount": 1}, payload_schema=schema).body()["payload_schema"]["title"] == title


@pytest.mark.parametrize("option", ["payload", "verifier"])
@pytest.mark.parametrize("value", [[1, 2], "text", 7], ids=["list", "text", "number"])
def test_payload_without_named_fields_is_refused(option: str, value: Any) -> None:
    """The server accepts objects, so a list or a number is refused by name."""
    with pytest.raises(InvalidTaskError, match=f"^{option} must be an object with named fields"):
        ask(**{option: value})


@pytest.mark.parametrize(
    "value",
    [object(), circle(), b"\xff", math.nan, math.inf, "\ud800"],
    ids=["object", "circle", "bytes", "nan", "inf", "half a character"],
)
@pytest.mark.parametrize("option", ["payload", "verifier", "form"])
def test_payload_that_json_cannot_represent_is_refused(option: str, value: Any) -> None:
    """A payload that cannot be written as JSON is refused at construction."""
    with pytest.raises(InvalidTaskError, match=option):
        ask(**{option: {"value": value}})


@pytest.mark.parametrize(
    "value",
    [{"of": {"a", "b"}}, Open(of={"a", "b"}), Open(of=[{"a", "b"}]), {"of": deque([frozenset({"a", "b"})])}],  # type: ignore[call-arg]  # extra
    ids=["set", "extra", "within an extra", "deque"],
)
def test_set_in_a_payload_is_refused(value: Any) -> None:
    """The order of a set changes with a restart, so the question would be another one."""
    with pytest.raises(InvalidTaskError, match="holds a set"):
        ask(payload=value)


@pytest.mark.parametrize(
    "schema",
    [bool, list[int], int | None, Plain, Uncallable, RootModel[list[int]], Trip("Oslo")],
    ids=["bool", "list", "union", "plain class", "function field", "root model", "instance"],
)
def test_response_class_without_a_form_is_refused(schema: Any) -> None:
    """Without named fields of JSON values there is no form, which is an error of the caller."""
    with pytest.raises(InvalidTaskError):
        ask(response_schema=schema)


def test_payload_class_without_a_schema_is_refused() -> None:
    """A payload class without a JSON Schema is an error of the caller."""
    with pytest.raises(InvalidTaskError):
        ask(payload={}, payload_schema=Plain)


def test_standard_typed_dict_works_or_is_refused() -> None:
    """pydantic reads `typing.TypedDict` from Python 3.12 on; before, a typed error explains the alternative."""
    told: AbstractContextManager[Any] = pytest.raises(InvalidTaskError, match="typing_extensions")
    with nullcontext() if sys.version_info >= (3, 12) else told:
        ask(response_schema=Typed)


@pytest.mark.parametrize(
    "text",
    [
        "Approve?\n12:00 INFO delivered",
        "Approve?\r",
        "Approve\t?",
        "\x1b[2JApprove?",
        "\x1b]8;;https://evil.example\x07Approve?",
        "Approve\x9b2J?",
        "Approve \u202e$052?",
        "Approve \u2066$250\u2069?",
        "Approve\u2028?",
        "Approve\u2029?",
        "Ap\u200bprove?",
        "Ap\u200dprove?",
        "Approve\ufeff?",
        "Approve\U000e0041?",
        "Approve\ud800?",
    ],
    ids=ascii,
)
def test_question_with_hidden_or_line_breaking_characters_is_refused(text: str) -> None:
    """No character hides, reorders or forges the text, and the error says where the rest belongs."""
    with pytest.raises(InvalidTaskError, match=r"task has .* put the rest into payload") as refused:
        ask(task=text)
    assert one_line(refused.value) == str(refused.value)


def test_question_has_at_most_500_characters() -> None:
    """One more character is refused, with the length and a remedy."""
    assert len(ask(task="é" * MAX_TASK_CHARS).task) == MAX_TASK_CHARS
    with pytest.raises(InvalidTaskError, match=r"has 501 characters, .* at most 500 .* put the rest into payload"):
        ask(task="é" * (MAX_TASK_CHARS + 1))


@pytest.mark.parametrize(
    "text", ["Ship 👩🏽‍⚕️ 👨‍👩‍👧 1️⃣?", "می‌خواهم؟", "क्‍ष?", "葛\U000e0100さん?", "ไทย\u200bคำ?"], ids=ascii
)
def test_questions_in_every_script_are_allowed(text: str) -> None:
    """Joiners, word breaks and variation selectors of ordinary text are accepted."""
    assert ask(task=text).body()["task"] == text


@given(st.dictionaries(st.text(), json_values), st.text(min_size=1).map(one_line).filter(str.strip))
def test_content_of_a_question_survives_the_server(payload: dict[str, Any], text: str) -> None:
    """A repeated question is recognised by the server's record of it, to the last digit."""
    body = ask(task=text, payload=payload).body()
    assert subject(from_json(json.dumps(body))) == subject(body)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"payload": {"b": 2, "a": 1}}, True),
        ({"task": "Do you approve?"}, True),
        ({"timeout_seconds": 60}, True),
        ({"payload": {"a": 1, "b": 3}}, False),
        ({"payload": {"a": 1}}, False),
        ({"payload": {}}, False),
    ],
    ids=["order", "wording", "timeout", "value", "field", "nothing"],
)
def test_question_is_identified_by_its_payload(other: dict[str, Any], same: bool) -> None:  # noqa: FBT001 - a column
    """A person decides on the payload, so the text around it may change."""
    body = ask(payload={"a": 1, "b": 2}).body()
    assert (subject(body | other) == subject(body)) is same


def test_question_without_payload_is_identified_by_its_text() -> None:
    """Without a payload a person decides on the text alone."""
    assert subject(ask(task="Approve A?").body()) != subject(ask(task="Approve B?").body())


def test_every_body_is_json() -> None:
    """A body can be sent as it is."""
    task = ask(payload=Refund(amount=1, due=date(2026, 1, 2)), assign_to="ann@example.com", notify=["slack:@ann"])
    assert json.loads(json.dumps(task.body())) == task.body()
