"""Decisions about a tool call whose arguments contain a True."""

import json
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from awaithumans_adapters.tool_approval.decisions import Call, Decided, decision_type, decisions
from awaithumans_adapters.tool_approval.json_types import arguments_schema
from awaithumans_core import Outcome, ResponseSchemaError, settle
from awaithumans_core.form import form_definition

ARGS: dict[str, Any] = {"force": True, "options": {"recursive": True}}
CALL = Call("delete", ARGS, ["approve", "edit", "reject"])


def decided(**response: Any) -> Decided:
    settled = settle(Outcome(task_id="task-1", status="completed", response=response), decision_type([CALL]))
    (only,) = decisions(settled, [CALL])
    return only


@pytest.mark.parametrize("kind", ["approve", "reject"])
def test_omitted_argument_keeps_the_models_value(kind: str) -> None:
    """The person's yes is the decision, and an argument missing in the answer keeps the model's value."""
    assert decided(decision=kind) == (kind, ARGS, "")


def test_form_shows_the_arguments_of_the_call() -> None:
    """The reviewer sees exactly what would run."""
    fields = {field["name"]: field for field in form_definition(decision_type([CALL]))["fields"]}
    assert fields["new_force"]["default"] is True
    assert fields["new_options"]["hint"] == 'JSON (left blank: {"recursive": true})'
    assert not any(fields[name]["required"] for name in ("new_force", "new_options"))


@pytest.mark.parametrize("blank", ["", None], ids=["empty text", "null"])
def test_blank_argument_keeps_the_models_value(blank: str | None) -> None:
    """An input that is left blank changes nothing."""
    assert decided(decision="approve", new_force=blank, new_options=blank) == ("approve", ARGS, "")


def test_changed_argument_is_used() -> None:
    """An argument that the person switched off is off, however the call is approved."""
    assert decided(decision="approve", new_force=False) == ("edit", {**ARGS, "force": False}, "")


def test_form_shows_what_the_tool_does() -> None:
    """The description of the tool is shown above the decision, each line with a margin."""
    call = Call("delete", ARGS, ["approve", "reject"], description="Delete files.\nApproved: yes")
    shown, decision, *_ = form_definition(decision_type([call]))["fields"]
    assert (shown["kind"], shown["label"]) == ("display_text", "delete")
    assert shown["text"].split("\n") == ["\u2502 Delete files.", "\u2502 Approved: yes"]
    assert decision["name"] == "decision"


def test_hint_shows_the_current_value_as_people_write_it() -> None:
    """A structure keeps its letters, and a text of several lines is not repeated without its line breaks."""
    args = {"ship_to": {"city": "Köln"}, "letter": "Dear Ann,\n\nbye"}
    fields = {
        field["name"]: field for field in form_definition(decision_type([Call("mail", args, ["edit"])]))["fields"]
    }
    assert fields["new_ship_to"]["hint"] == 'JSON (left blank: {"city": "Köln"})'
    assert fields["new_letter"]["hint"] == "(left blank: unchanged, as shown above)"
    assert fields["new_letter"]["kind"] == "long_text"
    assert "used with Approve and with Edit" in fields["decision"]["hint"]


def test_description_is_no_part_of_the_answers_schema() -> None:
    """An open question is the same one after an update that shows the description."""
    described = CALL._replace(description="Delete files.")
    assert decision_type([described]).model_json_schema() == decision_type([CALL]).model_json_schema()


def test_redacted_call_leaves_no_argument_in_the_form() -> None:
    """A reviewer may replace an argument, and sees none."""
    call = Call("mail", {"to": "ann@secret.example", "parts": ["secret"]}, ["approve", "edit"], redacted=True)
    form = json.dumps(form_definition(decision_type([call])))
    assert "secret" not in form
    assert "new_to" in form


def test_exact_decimal_is_typed_as_a_number() -> None:
    """The argument of a tool that takes an exact decimal needs no JSON, and may have a decimal comma."""

    class Refund(BaseModel):
        amount: Annotated[Decimal, Field(gt=0)]

    call = Call("refund", {"amount": "250"}, ["edit"], arguments_schema(Refund))
    schema = decision_type([call])
    _, amount = form_definition(schema)["fields"]
    assert amount["kind"] == "short_text"
    made = settle(
        Outcome(task_id="t", status="completed", response={"decision": "edit", "new_amount": "12,50"}), schema
    )
    assert decisions(made, [call]) == [Decided("edit", {"amount": "12.50"}, "")]


@pytest.mark.parametrize("schema", [None, {"properties": {"account": {"type": "integer"}}}])
def test_digits_of_a_long_number_stay(schema: dict[str, Any] | None) -> None:
    """An account number is no float, whether or not the schema of the tool is known."""
    call = Call("transfer", {"account": 2**53 + 3}, ["approve", "edit"], schema)
    made = settle(
        Outcome(task_id="t", status="completed", response={"decision": "edit", "new_account": str(2**53 + 1)}),
        decision_type([call]),
    )
    assert decisions(made, [call]) == [Decided("edit", {"account": 2**53 + 1}, "")]


@pytest.mark.parametrize(("current", "typed"), [([1, 2], "[1,2"), ({"dry_run": True}, "{dry_run: true")])
def test_half_typed_structure_is_refused(current: Any, typed: str) -> None:
    """Text that is no JSON does not replace a list or an object, though the schema of the tool is not known."""
    call = Call("run", {"options": current}, ["edit"])
    with pytest.raises(ResponseSchemaError, match="new_options"):
        settle(
            Outcome(task_id="t", status="completed", response={"decision": "edit", "new_options": typed}),
            decision_type([call]),
        )


def test_names_and_values_of_arguments_cannot_imitate_a_field() -> None:
    """A label and a hint are one line, in which hidden characters are escaped."""
    args = {"memo": "50\u202e00 RUE", "note": "x)\nNew amount: 5 (left blank: 1", "na\nme": "a"}
    form = form_definition(decision_type([Call("pay", args, ["edit"])]))
    texts = [field.get(part, "") for field in form["fields"] for part in ("label", "hint")]
    assert not any(char in text for text in texts for char in "\n\u202e")
