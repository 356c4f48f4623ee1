"""The table of Python types: which input a field has, how its value is written, and how an answer is read.

Numbers are typed into plain text boxes. The number input of browsers drops a decimal comma, so that 150,00 becomes
15000, and the one of Slack has no decimals. A number input would also submit a binary float, which is not exact.
"""

import datetime
import enum
import ipaddress
import pathlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from pydantic import (
    AnyHttpUrl,
    AnyUrl,
    AwareDatetime,
    EmailStr,
    EncodedBytes,
    FutureDate,
    FutureDatetime,
    HttpUrl,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    ValidationError,
)
from pydantic_core import to_json

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.choices import choices, chosen, form_text, in_order, options
from awaithumans_core.form.examples import Schema, example_text, resolved
from awaithumans_core.form.hints import bounds, limits
from awaithumans_core.form.markers import currency_of, zone_of
from awaithumans_core.form.nested import entry_of, read_nested
from awaithumans_core.form.numbers import read_decimal, read_float, read_money, read_whole_number
from awaithumans_core.form.texts import Reader, boxed, lines, read_base64, read_file, stripped, unchanged
from awaithumans_core.form.times import known_zone, read_in_zone, read_written
from awaithumans_core.schema.classes import answer_reader, bare, config, fields, json_schema, once
from awaithumans_core.schema.sdk_markers import TEXT_KINDS, sdk_marker

MAX_SHORT_TEXT = 200
"""Maximum length of a text that is typed into one line. A longer one gets a text area."""

Rules: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A row of the table: the input of a field, and how its answer is read."""

    shape: Mapping[str, Any]
    """The kind of input in the server's form, with its options."""
    expected: str = ""
    """How a value is written. Part of the hint, after the description of the field."""
    limit: str = ""
    """The bounds of a value, in words."""
    unit: str = ""
    """The currency or the time zone of a value. Part of the label."""
    read: Reader = unchanged
    """Turns what the input submits into a value that the class accepts."""
    example: str | None = None
    """An example of a value as a line of text; "" if any text is one, None if a value is not written on a line."""
    initial: Callable[[Any], Any] | None = None
    """Turns a default into the initial value of the input; None if the input does not show a default."""
    box: bool = False
    """Whether a value is a structure in a text box, which does not show a default."""
    typed: bool = False
    """Whether an answer is read from what a person types, so that a mistake is possible."""


class Marked(NamedTuple):
    """The input of a field together with what a marker of the official SDK says about the field."""

    input: Input
    label: str | None
    hint: str | None


def inputs(response_schema: Any) -> Mapping[str, Marked]:
    """Return the inputs of a response class by the names of its fields in an answer."""
    return once(response_schema, "__awaithumans_inputs__", lambda: _inputs(response_schema))


def typed_fields(response_schema: Any) -> frozenset[str]:
    """Return the names of the fields whose values are read from what a person types, so that a mistake is possible."""
    return frozenset(name for name, marked in inputs(response_schema).items() if marked.input.typed)


def _inputs(response_schema: Any) -> dict[str, Marked]:
    return {
        field.name: _marked(
            field.type,
            field.rules,
            partial(_part, response_schema, field.name),
            partial(_accepts, response_schema, field.name),
            config(response_schema),
        )
        for field in fields(response_schema)
    }


def _part(response_schema: Any, name: str) -> tuple[Schema, Schema]:
    """Return the JSON Schema of a field, and that of its class."""
    root = json_schema(response_schema)
    return resolved(root.get("properties", {}).get(name, {}), root), root


def _accepts(response_schema: Any, name: str, value: Any) -> bool:
    """Whether a class accepts a value of one of its fields, as far as that depends on this field."""
    try:
        answer_reader(response_schema).validate_json(to_json({name: value}))
    except ValidationError as invalid:
        return not any(error["loc"][:1] == (name,) for error in invalid.errors(include_input=False))
    except Exception:  # a validator of the class's own, which sees no complete answer here
        return True
    return True


SchemaOf: TypeAlias = Callable[[], tuple[Schema, Schema]]
Accepts: TypeAlias = Callable[[Any], bool]


def _marked(kind: Any, rules: Rules, schema: SchemaOf, accepts: Accepts, settings: Mapping[str, Any]) -> Marked:
    """Return the input of a field: that of its type, changed by its markers."""
    marker = sdk_marker(rules) or {}
    found = _of_type(kind, rules, settings) or _of_collection(kind, rules, settings)
    found = found or _of_schema(kind, schema, accepts)
    if (code := currency_of(rules, marker)) is not None:
        found = _money(found, code, bounds(rules))
    elif (zone := zone_of(rules, marker)) is not None:
        if found.shape["kind"] != "datetime" and schema()[0].get("format") != "date-time":
            raise InvalidTaskError(f"time_zone({zone!r}) is for a field of type datetime, not for {kind!r}")
        found = _zoned(found, zone)
    elif marker and marker.get("subtype") != "number":
        found = _with_marker(found, marker)
    return Marked(found, marker.get("label"), marker.get("hint"))


def _with_marker(found: Input, marker: Mapping[str, Any]) -> Input:
    """Return an input of the kind that a marker of the official SDK says, with the reader of the type."""
    shape = {name: value for name, value in marker.items() if name not in {"name", "label", "hint", "required"}}
    text = marker["kind"] in TEXT_KINDS
    read = found.read
    if marker["kind"] == "file_upload" and read is not read_base64:
        read = unchanged
    initial = found.initial or (_selected if marker["kind"] in {"single_select", "opinion_scale"} else None)
    return replace(
        found,
        shape=shape,
        expected=found.expected if text else "",
        read=read,
        initial=None if text else initial,
        typed=found.typed and text,
    )


def _selected(default: Any) -> Any:
    return default if isinstance(default, int | float) and not isinstance(default, bool) else form_text(default)


# --- types that people choose or type


def _short(**shape: Any) -> dict[str, Any]:
    return {"kind": "short_text", "subtype": "plain", **shape}


def _switch(_: Any, __: Rules) -> Input:
    return Input(
        shape={"kind": "switch", "true_label": "Yes", "false_label": "No"},
        initial=lambda default: default if isinstance(default, bool) else None,
    )


def _text(_: Any, rules: Rules) -> Input:
    known = {name: value for name, value in limits(rules).items() if name in {"min_length", "max_length", "pattern"}}
    long = known.get("max_length", 0) > MAX_SHORT_TEXT
    shape = {"kind": "long_text"} if long else _short()
    if long:
        known.pop("pattern", None)  # a text area has no pattern
    return Input(shape=shape | known, limit=bounds(rules, "characters"), example="")


def _number(expected: str, read: Reader, example: str) -> Callable[[Any, Rules], Input]:
    def made(_: Any, rules: Rules) -> Input:
        return Input(shape=_short(), expected=expected, limit=bounds(rules), read=read, example=example, typed=True)

    return made


def _money(found: Input, code: str, limit: str) -> Input:
    def read(value: Any) -> Any:
        return found.read(read_money(value, code))

    return replace(
        found,
        shape=_short(),
        expected="an amount, for instance 1234.50",
        limit=limit,
        unit=code,
        read=read if found.typed else partial(read_money, code=code),
        example="1234.50",
        typed=True,
    )


def _zoned(found: Input, zone: str) -> Input:
    known_zone(zone)
    shape = {"kind": "datetime", "timezone": zone}
    return replace(found, shape=shape, unit=zone, read=partial(read_in_zone, zone=zone), typed=True)


def _picker(kind: str, example: str, expected: str = "") -> Callable[[Any, Rules], Input]:
    def made(_: Any, rules: Rules) -> Input:
        read = partial(read_written, example=example)
        return Input(shape={"kind": kind}, expected=expected, limit=bounds(rules), read=read, example=example)

    return made


def _aware(_: Any, rules: Rules) -> Input:
    return _zoned(Input(shape={}, limit=bounds(rules), example="2026-01-31T14:30"), "UTC")


def _written(example: str, *, subtype: str = "plain") -> Callable[[Any, Rules], Input]:
    """Return the row of a type whose values people write as text that pydantic parses."""

    def made(_: Any, rules: Rules) -> Input:
        expected = f"for instance {example}" if example else ""
        shape = _short(subtype=subtype)
        return Input(
            shape=shape,
            expected=expected,
            limit=bounds(rules, "characters"),
            read=stripped,
            example=example,
            typed=True,
        )

    return made


def _bytes(_: Any, rules: Rules, encoding: str = "base64") -> Input:
    if encoding == "utf8":
        return Input(shape={"kind": "long_text"}, limit=bounds(rules, "bytes"))
    own = any(isinstance(rule, EncodedBytes) for rule in rules) or encoding != "base64"  # the class decodes it itself
    expected = "hexadecimal digits, for instance 68656c6c6f" if encoding == "hex" else "base64, for instance aGVsbG8="
    return Input(
        shape={"kind": "long_text"},
        expected=expected,
        limit=bounds(rules, "bytes"),
        read=read_file if own else read_base64,
        typed=True,
    )


_TYPES: Mapping[Any, Callable[[Any, Rules], Input]] = {
    bool: _switch,
    str: _text,
    int: _number("whole number", read_whole_number, "1234"),
    float: _number("number", read_float, "1234.5"),
    Decimal: _number("number", read_decimal, "1234.5"),
    datetime.date: _picker("date", "2026-01-31"),
    PastDate: _picker("date", "2026-01-31", "a date in the past"),
    FutureDate: _picker("date", "2026-01-31", "a date in the future"),
    datetime.datetime: _picker("datetime", "2026-01-31T14:30"),
    NaiveDatetime: _picker("datetime", "2026-01-31T14:30"),
    PastDatetime: _picker("datetime", "2026-01-31T14:30", "a time in the past"),
    FutureDatetime: _picker("datetime", "2026-01-31T14:30", "a time in the future"),
    AwareDatetime: _aware,
    datetime.time: _picker("time", "14:30"),
    datetime.timedelta: _written("01:30:00 or 2 days"),
    EmailStr: _written("person@example.com", subtype="email"),
}
"""The input of each type."""

_BASES: tuple[tuple[tuple[type, ...], Callable[[Any, Rules], Input]], ...] = (
    ((HttpUrl, AnyHttpUrl), _written("https://example.com/", subtype="url")),
    ((AnyUrl,), _written("https://example.com/")),
    ((uuid.UUID,), _written("123e4567-e89b-42d3-a456-426614174000")),
    ((ipaddress.IPv4Address,), _written("192.0.2.1")),
    ((ipaddress.IPv6Address,), _written("2001:db8::1")),
    ((ipaddress.IPv4Network,), _written("192.0.2.0/24")),
    ((ipaddress.IPv6Network,), _written("2001:db8::/32")),
    ((pathlib.PurePath,), _written("")),
    ((Decimal,), _number("number", read_decimal, "1234.5")),
)
"""The input of each type that has subclasses."""


def _of_type(kind: Any, rules: Rules, settings: Mapping[str, Any]) -> Input | None:
    if (known := choices(kind)) is not None:
        shape = {"kind": "single_select", "options": options(kind)}
        return Input(shape=shape, read=partial(chosen, known), initial=form_text)
    if kind is bytes:
        return _bytes(kind, rules, settings.get("val_json_bytes", "base64"))
    row = _row(kind)
    return None if row is None else row(kind, rules)


def _row(kind: Any) -> Callable[[Any, Rules], Input] | None:
    try:
        if kind in _TYPES:
            return _TYPES[kind]
    except TypeError:  # an annotation that cannot be hashed
        return None
    if not isinstance(kind, type):
        return None
    return next((row for bases, row in _BASES if issubclass(kind, bases)), None)


# --- collections


def _of_collection(kind: Any, rules: Rules, settings: Mapping[str, Any]) -> Input | None:
    """Return the input of a list, set or tuple of any length: a multi select, or one entry per line."""
    annotation = entry_of(kind)
    if annotation is None:
        return None
    item, item_rules, nullable = bare(annotation)
    if nullable:
        return None
    limit = bounds(rules, "entries")
    if (known := choices(item)) is not None:
        return Input(
            shape={"kind": "multi_select", "options": options(item), **_counts(rules)},
            limit=limit,
            read=_several(known, boxed(kind)),
            initial=lambda default: in_order(item, default) or None,
        )
    row = _of_type(item, item_rules, settings)
    if row is None or row.example is None:
        return None
    if (code := currency_of(item_rules, sdk_marker(item_rules) or {})) is not None:
        row = _money(row, code, row.limit)
    elif (zone := zone_of(item_rules, sdk_marker(item_rules) or {})) is not None:
        row = _zoned(row, zone)
    expected = f"one per line, for instance {row.example}" if row.example else "one per line"
    return Input(
        shape={"kind": "long_text"},
        expected=expected,
        limit=", ".join(part for part in (limit, row.limit and f"each {row.limit}") if part),
        unit=row.unit,
        read=lines(row.read, of_text=item is str),
        box=True,
        typed=True,
    )


def _counts(rules: Rules) -> dict[str, Any]:
    known = limits(rules)
    return {
        name: known[limit]
        for name, limit in (("min_count", "min_length"), ("max_count", "max_length"))
        if known.get(limit)
    }


def _several(known: Mapping[str, Any], read_text: Reader) -> Reader:
    def read(value: Any) -> Any:
        return [chosen(known, each) for each in value] if isinstance(value, list) else read_text(value)  # pyright: ignore

    return read


# --- everything else


def _of_schema(kind: Any, schema: SchemaOf, accepts: Accepts) -> Input:
    """Return the input of a type that is not in the table: text, or a box for JSON, according to its JSON Schema."""
    part, root = schema()
    if part.get("type") == "string":
        return Input(shape=_short(), read=stripped, typed=True)
    read_json = boxed(kind, of_list=part.get("type") == "array")

    def read(value: Any) -> Any:
        return read_nested(read_json(value), kind, _reader_of_number)

    example = example_text(part, root, accepts)
    return Input(
        shape={"kind": "long_text"},
        expected=f"JSON, for instance {example}" if example else f"JSON of this form: {example_text(part, root)}",
        read=read,
        box=True,
        typed=True,
    )


def _reader_of_number(kind: Any, rules: Rules) -> Reader | None:
    """Return the reader of a number inside a structure; None for every other type."""
    if not isinstance(kind, type) or not issubclass(kind, int | float | Decimal) or issubclass(kind, bool | enum.Enum):
        return None
    found = _of_type(kind, rules, {})
    if found is None:
        return None
    code = currency_of(rules, sdk_marker(rules) or {})
    return found.read if code is None else _money(found, code, "").read
