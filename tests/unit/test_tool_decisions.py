"""Decisions about a tool call whose arguments contain a True."""

from typing import Any

import pytest

from awaithumans_adapters.tool_approval.decisions import Call, Decided, decision_type, decisions
from awaithumans_core import Outcome, settle
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
