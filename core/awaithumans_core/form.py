"""The form that a reviewer fills in, derived from the response class, and the conversion of what a form submits.

Without a `form_definition` the dashboard shows the payload but no input, so every task carries one. Form inputs submit
text. The text of a select whose options are numbers, or of a text box that represents a list, is therefore converted
back to what the response class expects.
"""

import datetime
import enum
import ipaddress
import json
import math
import pathlib
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import AnyUrl, ValidationError

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.json_values import holds_yes, json_object
from awaithumans_core.schema import Field, adapter, fields, named_type, once

FORM_VERSION = 1
"""The form `version` that the server of 2026 understands."""


def form_definition(response_schema: Any) -> dict[str, Any]:
    """Return the server's form for a response class: `{"version": 1, "fields": [...]}`.

    Takes a pydantic model, a dataclass or a TypedDict. Titles become labels, descriptions become hints. Types map to
    inputs: bool a switch; str a short text; int and float a number; date, datetime and time their pickers; Literal and
    Enum a single select; a list of Enum or Literal a multi select; exact decimals, identifiers, durations, paths, URLs
    and IP addresses a short text; anything else a long text that takes JSON. A type alias or a NewType gets the input
    of the type it names.

    A default is the initial value of a switch or a select, so the reviewer sees what they submit. A default that is
    True, or contains a True, counts only if the answer contains it.

    Raises:
        InvalidTaskError: the class is none of these, so it has no named fields for a person to fill in.
    """
    found = fields(response_schema)
    if any(field.info.default_factory is not None for field in found):  # it may return another default every time
        return _form(found)
    return dict(once(response_schema, "__awaithumans_form__", lambda: _form(found)))


def _form(found: Sequence[Field]) -> dict[str, Any]:
    return json_object({"version": FORM_VERSION, "fields": [_shown(field) for field in found]}, "the form")


def answer_from_form(response: Mapping[str, Any], response_schema: Any) -> dict[str, Any]:
    """Convert what form inputs submit: text for a non-text option, JSON for a structure, blank for "not filled in".

    Values that already have the right type are returned unchanged, so answers given through the API do not change.
    """
    answer = dict(response)
    for field in fields(response_schema):
        if field.name not in answer:
            continue
        value = answer[field.name]
        if (value is None and not field.nullable) or (value == "" and field.type is not str):
            if not _preselected(field):
                if not field.required:
                    del answer[field.name]  # not filled in: the class's own default applies
            elif field.type is bool:
                answer[field.name] = None
        elif field.type is str:
            continue
        elif isinstance(value, str):
            answer[field.name] = _from_text(value, field.type)
        elif (options := _options(_item(field.type))) is not None and isinstance(value, list):
            answer[field.name] = [_chosen(options, each) for each in cast("Sequence[object]", value)]
    return answer


def _preselected(field: Field) -> bool:
    """Whether the form shows the default as already chosen. A person who clears it has not chosen the default."""
    if field.type is bool:
        return field.preset is True
    return field.preset is not None and (_options(field.type) or _options(_item(field.type))) is not None


def _chosen(options: Mapping[str, Any], choice: object) -> object:
    return options.get(choice, choice) if isinstance(choice, str) else choice


def _from_text(value: str, kind: Any) -> Any:
    options = _options(kind)
    if options is not None:
        return options.get(value, value)
    if kind is float:
        return [value] if _endless(value) else value  # in a list, which never validates: as null it could pass
    if kind in _INPUTS or (_takes(kind, value) and not _is_open(kind)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _endless(text: str) -> bool:
    """Whether the text is infinity or NaN, which a float accepts although no person means it."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _is_open(kind: Any) -> bool:
    """Whether the type accepts text among other things.

    The input is then read as JSON first, so that false is not the word "false".
    """
    return kind is Any or get_origin(kind) in {typing.Union, types.UnionType}


def _takes(kind: Any, text: str) -> bool:
    """Whether the type accepts this text unchanged, as exact decimals and identifiers do."""
    try:
        adapter(kind).validate_python(text)
    except (ValidationError, InvalidTaskError):
        return False
    return True


def _switch(_: Field) -> dict[str, Any]:
    return {"kind": "switch", "true_label": "Yes", "false_label": "No"}


def _text(field: Field) -> dict[str, Any]:
    shape: dict[str, Any] = {"kind": "short_text", "subtype": "plain"}
    for rule in field.rules:
        for limit in ("min_length", "max_length", "pattern"):
            value = getattr(rule, limit, None)
            if value is not None:
                shape[limit] = getattr(value, "pattern", value)  # a pattern may be compiled or text
    return shape


def _number(_: Field) -> dict[str, Any]:
    return {"kind": "short_text", "subtype": "number"}


_INPUTS: Mapping[Any, Callable[[Field], dict[str, Any]]] = {
    bool: _switch,
    str: _text,
    int: _number,
    float: _number,
    datetime.date: lambda _: {"kind": "date"},
    datetime.datetime: lambda _: {"kind": "datetime"},
    datetime.time: lambda _: {"kind": "time"},
}
"""The input for each Python type, as the official SDK infers it, so that a form does not change on migration."""


_TYPED_AS_TEXT = (
    *(Decimal, uuid.UUID, datetime.timedelta, pathlib.PurePath, AnyUrl),
    *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network),
)
"""Types whose values people type as plain text, which pydantic parses."""


def _is_typed_as_text(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, _TYPED_AS_TEXT)


def _shown(field: Field) -> dict[str, Any]:
    label = field.info.title or field.name.replace("_", " ").strip().capitalize()
    common: dict[str, Any] = {"name": field.name, "label": label, "required": field.required}
    if field.info.description:
        common["hint"] = field.info.description
    shape: dict[str, Any]
    if field.type in _INPUTS:
        shape = _INPUTS[field.type](field)
        if field.type is bool and isinstance(field.preset, bool):
            shape["default"] = field.preset
        elif field.preset not in (None, ""):
            common["hint"] = f"{common.get('hint', '')} (left blank: {field.preset})".strip()
    elif _options(field.type) is not None:
        shape = {"kind": "single_select", "options": _select(field.type)}
        if field.preset is not None:
            shape["default"] = _form_text(field.preset)
    elif _options(_item(field.type)) is not None:
        shape = {"kind": "multi_select", "options": _select(_item(field.type))}
        if field.preset:
            shape["default"] = [_form_text(each) for each in field.preset]
    elif _is_typed_as_text(field.type):
        shape = {"kind": "short_text", "subtype": "plain"}
        if field.preset is not None:
            common["hint"] = f"{common.get('hint', '')} (left blank: {field.preset})".strip()
    else:
        common["required"] = field.required or holds_yes(field.default)
        shape = {"kind": "long_text"}
        example = '["a", "b"]' if _item(field.type) is not None else '{"key": "value"}'
        common.setdefault("hint", f"JSON, for instance {example}")
    return common | shape


def _item(kind: Any) -> Any:
    """Return the X of `list[X]`, without aliases and annotations of X; None for every other type."""
    if get_origin(kind) is not list or not get_args(kind):
        return None
    item = named_type(get_args(kind)[0])
    return named_type(get_args(item)[0]) if get_origin(item) is Annotated else item


def _select(kind: Any) -> list[dict[str, str]]:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if odd := [member.name for member in kind if not isinstance(member.value, str | int | float)]:
            raise InvalidTaskError(
                f"{kind.__name__}.{odd[0]} has a value that no answer can carry: give its members text or numbers"
            )
        return [{"value": _form_text(member), "label": member.name.replace("_", " ").capitalize()} for member in kind]
    return [{"value": str(value), "label": str(value)} for value in _values(kind)]


def _values(kind: Any) -> list[Any]:
    """Return the values of a Literal, including those of aliases of other Literals in it."""
    values = (named_type(value) for value in get_args(kind))
    return [each for value in values for each in (_values(value) if get_origin(value) is Literal else [value])]


def _form_text(choice: Any) -> str:
    """Return the text that represents this choice in a form."""
    return str(choice.value if isinstance(choice, enum.Enum) else choice)


def _options(kind: Any) -> dict[str, Any] | None:
    """Return the values of a Literal or an Enum by their form text; None for every other type."""
    if get_origin(kind) is Literal:
        return {str(value): value for value in _values(kind)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {_form_text(member): member.value for member in kind}
    return None
