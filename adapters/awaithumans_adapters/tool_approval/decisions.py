"""The decisions of a person about tool calls: the form that asks for them, and how a submitted form is read.

Laws: nothing is approved without a person's own decision. What runs is what the person saw: a value typed into the form
counts, whichever decision lets the call run.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, cast

from pydantic import BaseModel, Field, WithJsonSchema, create_model, model_validator

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
from awaithumans_core.safe_text import json_line
from awaithumans_core.schema.classes import Above, Hint, Preset

Kind: TypeAlias = Literal["approve", "edit", "reject", "respond"]

KINDS: tuple[Kind, ...] = ("approve", "edit", "reject", "respond")

_HINTS: Mapping[str, str] = {
    "reject": "why, when rejected",
    "respond": "the answer to give in place of running the tool",
}


_CHANGES = "Values entered below are used with Approve and with Edit. A field that is left blank changes nothing."

MAX_HINT_CHARS = 200
"""Length of a text that is repeated in the hint of its field. A longer one is shown above the form only."""


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
        about: list[Any] = [Above(call.tool, call.description)] if call.description else []
        about += [Hint(_CHANGES)] if _editable(call) else []
        fields[f"decision{end}"] = (Annotated[choices, Field(title=title), *about], ...)
        if asked_for := [_HINTS[kind] for kind in call.allowed if kind in _HINTS]:
            fields[f"message{end}"] = (
                str,
                Field("", title="Message", description=f"For the model: {', or '.join(asked_for)}"),
            )
        for number, name in enumerate(_editable(call)):
            described = None if call.redacted else _shown(call, name)
            given: dict[str, Any] = {"title": f"New {name}", "description": described, "alias": f"new_{name}{end}"}
            present = Preset(None if call.redacted else _present(call, name))
            hints = [] if call.redacted else _hints(call, name)
            fields[f"new_{number}{end}"] = (
                Annotated[_argument_type(call, name), present, *hints],
                Field(None, **given),
            )

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
        name: value
        for name, value in ((name, _read_back(call, name, value)) for name, value in typed.items())
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
    known, current = _argument(call, name), call.args.get(name)
    if not known and type(current) is int:
        return optional(_AMOUNT)
    return optional(json_type(known or _described(current), call.schema or {}))


def _described(value: Any) -> Schema:
    kinds: dict[type, str] = {bool: "boolean", float: "number", str: "string", list: "array", dict: "object"}
    return {"type": kinds[type(value)]} if type(value) in kinds else {}


_AMOUNT = Annotated[Decimal, WithJsonSchema({"type": "number"})]
"""A number in place of an integer whose schema is not known. It may be meant as an amount, so it may have a fraction.

It is read exactly, because a float would change the digits of a long account number.
"""


def _whole(value: Any, current: Any) -> Any:
    """Return a number typed in place of an integer as an integer, if it has no fraction."""
    if type(current) is not int or isinstance(value, bool):
        return value
    number = Decimal(value) if isinstance(value, int | float | Decimal) or _NUMERAL.fullmatch(str(value)) else None
    if number is None:
        return value
    return int(number) if number == number.to_integral_value() else float(number)


def _read_back(call: Call, name: str, value: Any) -> Any:
    """Return a value of the answer as the tool takes it."""
    if _argument(call, name) and not isinstance(value, float):
        return value
    return _whole(value, call.args.get(name))


_NUMERAL = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def _hints(call: Call, name: str) -> list[Hint]:
    """Return the hint of an argument's field, unless it is the one that the form derives from the current value."""
    value = _present(call, name)
    if isinstance(value, dict | list):
        return [Hint(f"JSON (left blank: {json_line(value)})")]
    if isinstance(value, str) and ("\n" in value or len(value) > MAX_HINT_CHARS):
        return [Hint("(left blank: unchanged, as shown above)")]
    return []


def _shown(call: Call, name: str) -> str | None:
    """Return the description of an argument's field.

    Plain inputs need none, because the form shows their current value.
    """
    value = _present(call, name)
    return f"JSON (left blank: {json.dumps(value)})" if isinstance(value, dict | list) else None
