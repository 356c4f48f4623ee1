"""The form a reviewer fills in, derived from the response class.

Without a `form_definition` the dashboard shows the payload and nothing to answer with, so every task carries one. The
way back is here too: form inputs speak text, so a select whose options are numbers, or a text box that stands for a
list, is read back into what the response class expects.
"""

import dataclasses
import datetime
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import MaxLen, MinLen
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from awaithumans_core.errors import InvalidTaskError

R = TypeVar("R")

FORM_VERSION = 1
"""The `version` the server of 2026 understands."""


class _Read(NamedTuple):
    """One field of a response class, seen from the form."""

    name: str
    type: Any
    info: FieldInfo
    required: bool


def form_definition(response_schema: Any) -> dict[str, Any]:
    """The server's form for a response class: `{"version": 1, "fields": [...]}`.

    Takes a pydantic model, a dataclass or a TypedDict. Titles become labels, descriptions become hints. Types map to
    inputs: bool a switch; str a short text; int and float a number; date, datetime and time their pickers; Literal and
    Enum a single select; a list of Enum or Literal a multi select; anything else a long text that takes JSON.

    Raises:
        InvalidTaskError: the class is none of these, so a person could not answer it with named fields.
    """
    fields = [_field(field) for field in _fields(response_schema)]
    return {"version": FORM_VERSION, "fields": fields}


def json_schema(schema: Any) -> dict[str, Any]:
    """JSON Schema of a payload or response class."""
    return dict(_once(schema, "__awaithumans_schema__", lambda: TypeAdapter(schema).json_schema()))


def answer_from_form(response: Mapping[str, Any], response_schema: Any) -> dict[str, Any]:
    """Undo what form inputs do to values: text for a non-text option, JSON for a structure, "" for an empty box.

    Values that already have the right type pass through untouched, so answers given through the API are not changed.
    """
    answer = dict(response)
    for field in _fields(response_schema):
        value = answer.get(field.name)
        if not isinstance(value, str) or field.type is str:
            continue
        if value == "" and not field.required:
            answer[field.name] = (
                None if _optional(field.info.annotation) else field.info.get_default(call_default_factory=True)
            )
        else:
            answer[field.name] = _from_text(value, field.type)
    return answer


def _from_text(value: str, kind: Any) -> Any:
    options = _options(kind)
    if options is not None:
        return options.get(value, value)
    if kind in _INPUTS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _switch(_: _Read) -> dict[str, Any]:
    return {"kind": "switch", "true_label": "Yes", "false_label": "No"}


def _text(field: _Read) -> dict[str, Any]:
    limits: dict[str, Any] = {"kind": "short_text", "subtype": "plain"}
    for rule in field.info.metadata:
        if isinstance(rule, MinLen):
            limits["min_length"] = rule.min_length
        elif isinstance(rule, MaxLen):
            limits["max_length"] = rule.max_length
        elif getattr(rule, "pattern", None):
            limits["pattern"] = rule.pattern
    return limits


def _number(_: _Read) -> dict[str, Any]:
    return {"kind": "short_text", "subtype": "number"}


_INPUTS: Mapping[Any, Callable[[_Read], dict[str, Any]]] = {
    bool: _switch,
    str: _text,
    int: _number,
    float: _number,
    datetime.date: lambda _: {"kind": "date"},
    datetime.datetime: lambda _: {"kind": "datetime"},
    datetime.time: lambda _: {"kind": "time"},
}
"""Python type -> input, as the official SDK infers it, so that a form does not change on moving over."""


def _field(field: _Read) -> dict[str, Any]:
    label = field.info.title or field.name.replace("_", " ").strip().capitalize()
    common = {"name": field.name, "label": label, "required": field.required}
    if field.info.description:
        common["hint"] = field.info.description
    of_list = get_args(field.type)[0] if get_origin(field.type) is list and get_args(field.type) else None
    default = None if field.required else field.info.get_default(call_default_factory=True)
    if field.type in _INPUTS:
        shape = _INPUTS[field.type](field)
        if field.type is bool and default is not None:
            shape["default"] = default
    elif _options(field.type) is not None:
        shape = {"kind": "single_select", "options": _select(field.type)}
    elif of_list is not None and _options(of_list) is not None:
        shape = {"kind": "multi_select", "options": _select(of_list)}
    else:
        shape = {"kind": "long_text"}
        common.setdefault("hint", "JSON, for instance " + ('["a", "b"]' if of_list is not None else '{"key": "value"}'))
    return common | shape


def _select(kind: Any) -> list[dict[str, str]]:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [{"value": str(member.value), "label": member.name.replace("_", " ").capitalize()} for member in kind]
    return [{"value": str(value), "label": str(value)} for value in get_args(kind)]


def _options(kind: Any) -> dict[str, Any] | None:
    """Form text -> value of a Literal or an Enum; None for every other type."""
    if get_origin(kind) is Literal:
        return {str(value): value for value in get_args(kind)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {str(member.value): member.value for member in kind}
    return None


def _once(schema: Any, name: str, compute: Callable[[], R]) -> R:
    """Keep what is derived from a class on the class.

    Computed once, and gone with it (a sandbox makes a class for every run).
    """
    if isinstance(schema, type):
        held: R | None = vars(schema).get(name)
        if held is not None:
            return held
    value = compute()
    with suppress(AttributeError, TypeError):
        setattr(schema, name, value)
    return value


def _fields(schema: Any) -> tuple[_Read, ...]:
    return _once(schema, "__awaithumans_fields__", lambda: _read_fields(schema))


def _read_fields(schema: Any) -> tuple[_Read, ...]:
    """The named fields of a response class."""
    if _is_model(schema):
        found = {name: (info, info.is_required()) for name, info in schema.model_fields.items()}
    elif dataclasses.is_dataclass(schema):
        hints = get_type_hints(schema, include_extras=True)
        found = {
            field.name: (_field_info(hints[field.name], field), _dataclass_required(field))
            for field in dataclasses.fields(schema)
        }
    elif typing.is_typeddict(schema):
        hints = get_type_hints(schema, include_extras=True)
        found = {
            name: (FieldInfo.from_annotation(hint), name in schema.__required_keys__) for name, hint in hints.items()
        }
    else:
        raise InvalidTaskError(
            "response_schema must be a pydantic model, a dataclass or a TypedDict, so that a reviewer gets named "
            f"fields; {schema!r} is none of these. "
            f"Wrap it: class Answer(BaseModel): value: {getattr(schema, '__name__', schema)}"
        )
    return tuple(_Read(name, _bare(info.annotation), info, required) for name, (info, required) in found.items())


def _is_model(schema: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def _field_info(hint: Any, field: "dataclasses.Field[Any]") -> FieldInfo:
    if field.default is not dataclasses.MISSING:
        return FieldInfo.from_annotated_attribute(hint, field.default)
    info = FieldInfo.from_annotation(hint)
    if field.default_factory is not dataclasses.MISSING:
        info.default_factory = field.default_factory
    return info


def _dataclass_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _optional(annotation: Any) -> bool:
    return get_origin(annotation) in {typing.Union, types.UnionType} and type(None) in get_args(annotation)


def _bare(annotation: Any) -> Any:
    """`X | None` and `Annotated[X, ...]` are X to a form."""
    while True:
        if get_origin(annotation) is typing.Annotated:
            annotation = get_args(annotation)[0]
        elif _optional(annotation):
            inner = [arg for arg in get_args(annotation) if arg is not type(None)]
            if len(inner) != 1:
                return annotation
            annotation = inner[0]
        else:
            return annotation
