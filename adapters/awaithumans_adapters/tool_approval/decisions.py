"""The decisions of a person about tool calls: the form that asks for them, and how a submitted form is read.

Laws: nothing is approved without a person's own decision. What runs is what the person saw: a value typed into the form
counts, whichever decision lets the call run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, cast

from pydantic import BaseModel, Field, create_model, model_validator

from awaithumans_adapters.tool_approval.json_types import Schema, json_type, optional
from awaithumans_core.errors import (
    AnswererNotAllowedError,
    QuestionEndedError,
    ResponseSchemaError,
    TaskCancelledError,
    TaskNotFoundError,
    TaskTimeoutError,
    VerificationExhaustedError,
)
from awaithumans_core.schema.classes import Above, Preset

Kind: TypeAlias = Literal["approve", "edit", "reject", "respond"]

KINDS: tuple[Kind, ...] = ("approve", "edit", "reject", "respond")

_HINTS: Mapping[str, str] = {
    "reject": "why, when rejected",
    "respond": "the answer to give in place of running the tool",
}


class Call(NamedTuple):
    """A tool call that waits for a person's decision."""

    tool: str
    args: Mapping[str, Any]
    """The arguments that the model has chosen."""
    allowed: Sequence[Kind]
    """The decisions that the person may choose from."""
    schema: Schema | None = None
    """JSON Schema of the arguments, if known. Otherwise the types of the current arguments are used."""
    description: str = ""
    """What the tool does. It is shown above the decision."""
    redacted: bool = False
    """Whether nothing of the arguments may appear in the form."""


class Decided(NamedTuple):
    """A person's decision about one call."""

    kind: Kind
    args: Mapping[str, Any]
    """The arguments to run the tool with: the model's, or the person's."""
    message: str
    """The person's message to the model. May be empty."""


def decision_type(calls: Sequence[Call], check: Callable[[Decided], None] | None = None) -> type[BaseModel]:
    """Return the response class: `decision`, `message`, and `new_{argument}` per argument, numbered for several calls.

    Args:
        calls: The tool calls that wait.
        check: Raises ValueError for a decision that cannot be carried out, for instance arguments the tool would not
            accept.
    """
    fields: dict[str, Any] = {}
    for call, end in zip(calls, _ends(calls), strict=True):
        title = f"{end.removeprefix('_')}. {call.tool}" if end else "Decision"
        choices = Enum("Decision", {kind: kind for kind in call.allowed})  # type: ignore[misc]  # made at run time
        about = [Above(call.tool, call.description)] if call.description else []
        fields[f"decision{end}"] = (Annotated[choices, Field(title=title), *about], ...)
        if hints := [_HINTS[kind] for kind in call.allowed if kind in _HINTS]:
            fields[f"message{end}"] = (
                str,
                Field("", title="Message", description=f"For the model: {', or '.join(hints)}"),
            )
        for number, name in enumerate(_editable(call)):
            described = None if call.redacted else _shown(call, name)
            given: dict[str, Any] = {"title": f"New {name}", "description": described, "alias": f"new_{name}{end}"}
            present = Preset(None if call.redacted else _present(call, name))
            fields[f"new_{number}{end}"] = (Annotated[_argument_type(call, name), present], Field(None, **given))

    def fits(answer: BaseModel) -> BaseModel:
        for decided in decisions(answer, calls):
            if check is not None:
                check(decided)
        return answer

    return create_model("Decision", __validators__={"fits": cast("Any", model_validator(mode="after")(fits))}, **fields)


def decisions(answer: BaseModel, calls: Sequence[Call]) -> list[Decided]:
    """Return the decisions in an instance of `decision_type(calls)`, in the order of the calls."""
    given = answer.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [_decided(given, call, end) for call, end in zip(calls, _ends(calls), strict=True)]


def _decided(given: Mapping[str, Any], call: Call, end: str) -> Decided:
    typed = {name: given.get(f"new_{name}{end}") for name in _editable(call)}
    changed = {
        name: _whole(value, call.args.get(name))
        for name, value in typed.items()
        if value not in (None, "") and value != _present(call, name)
    }
    kind: Kind = given[f"decision{end}"]
    if kind == "approve" and changed:
        kind = "edit"
    return Decided(kind, {**call.args, **changed} if kind == "edit" else call.args, given.get(f"message{end}") or "")


def not_run(ended: QuestionEndedError) -> str:
    """Return the message to the model about a call that was not decided."""
    why = next((words for error, words in _WHY.items() if isinstance(ended, error)), "the decision is not known")
    if isinstance(ended, ResponseSchemaError):
        why = f"{why}: {'; '.join(ended.problems)}"
    return f"The tool was not run: {why}. Do not call it again unless the user asks for it."


_WHY: Mapping[type[QuestionEndedError], str] = {
    TaskTimeoutError: "nobody decided about it in time",
    TaskCancelledError: "the question was cancelled before anybody decided",
    VerificationExhaustedError: "every decision about it was turned down",
    ResponseSchemaError: "the decision about it does not fit",
    AnswererNotAllowedError: "another person decided about it than the one who may",
    TaskNotFoundError: "the question was deleted before anybody decided",
}


def _ends(calls: Sequence[Call]) -> list[str]:
    """Return the suffix of the field names of each call."""
    return [""] if len(calls) == 1 else [f"_{number}" for number in range(1, len(calls) + 1)]


def _editable(call: Call) -> list[str]:
    if "edit" not in call.allowed:
        return []
    return list(dict.fromkeys([*call.args, *(call.schema or {}).get("properties", {})]))


def _argument(call: Call, name: str) -> Schema:
    known: Mapping[str, Schema] = (call.schema or {}).get("properties", {})
    return known.get(name, {})


def _present(call: Call, name: str) -> Any:
    """Return the value of an argument that the tool would run with if the person changes nothing."""
    return call.args.get(name, _argument(call, name).get("default"))


def _argument_type(call: Call, name: str) -> Any:
    """Return the type of an argument's field.

    Null means "unchanged": people leave fields alone that they do not change.
    """
    return optional(json_type(_argument(call, name) or _described(call.args.get(name)), call.schema or {}))


def _described(value: Any) -> Schema:
    # An integer may be meant as an amount, so a person may change it to a number with a fraction.
    kinds: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "string"}
    return {"type": kinds[type(value)]} if type(value) in kinds else {}


def _whole(value: Any, current: Any) -> Any:
    """Return a number typed in place of an integer as an integer, if it has no fraction."""
    if isinstance(value, float) and type(current) is int and value.is_integer():
        return int(value)
    return value


def _shown(call: Call, name: str) -> str | None:
    """Return the description of an argument's field.

    Plain inputs need none, because the form shows their current value.
    """
    value = _present(call, name)
    return f"JSON (left blank: {json.dumps(value)})" if isinstance(value, dict | list) else None
