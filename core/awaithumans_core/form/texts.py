"""Reading of what people type into text boxes: lists with one entry per line, JSON, and base64."""

import base64
import binascii
import json
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast, get_origin

from pydantic import ValidationError

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.refusal import Unreadable
from awaithumans_core.schema.classes import adapter

Reader = Callable[[Any], Any]
"""Turns what an input submits into a value that the class accepts. Raises `Unreadable`."""

_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def unchanged(value: Any) -> Any:
    """Return what an input submits as it is."""
    return value


def stripped(value: Any) -> Any:
    """Return text without surrounding white space; other values unchanged."""
    return value.strip() if isinstance(value, str) else value


def lines(read: Reader, *, of_text: bool) -> Reader:
    """Return the reader of a list whose entries are typed one per line, or as a JSON list.

    Args:
        read: Reads one entry.
        of_text: Whether the entries are text, so that a line that looks like a JSON list of other values is an entry.
    """

    def read_lines(value: Any) -> Any:
        if isinstance(value, list):
            return _each(read, cast("Sequence[Any]", value))
        if not isinstance(value, str):
            return value
        given = _json_list(value)
        if given is not None and (not of_text or all(isinstance(each, str) for each in given)):
            return _each(read, given)
        return _each(read, [line.strip() for line in _LINE_BREAK.split(value) if line.strip()])

    return read_lines


def _each(read: Reader, entries: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for number, entry in enumerate(entries):
        try:
            found.append(read(entry))
        except Unreadable as problem:
            raise problem.inside(number) from None
    return found


def _json_list(text: str) -> list[Any] | None:
    text = unfenced(text)
    if not text.lstrip().startswith("["):
        return None
    try:
        given: Any = json_value(text)
    except (ValueError, RecursionError):
        return None
    return cast("list[Any]", given) if isinstance(given, list) else None  # type: ignore[redundant-cast]


def boxed(kind: Any, *, of_list: bool = False) -> Reader:
    """Return the reader of a box that takes JSON, for this type.

    Text that the type accepts as it is stays text, unless the type accepts other values, too: `false` typed for
    `bool | str` is not the word "false".

    Args:
        kind: The type of the value.
        of_list: Whether the value is a list, so that a single object is refused with what to write.
    """
    several = kind is Any or get_origin(kind) in {typing.Union, types.UnionType}

    def read(value: Any) -> Any:
        if not isinstance(value, str) or (not several and _takes(kind, value)):
            return value
        try:
            found = json_value(unfenced(value))
        except (ValueError, RecursionError) as error:
            if several and _takes(kind, value):
                return value
            raise Unreadable(_not_json(error)) from None
        if of_list and isinstance(found, dict):
            raise Unreadable("write [ ... ] around it, because this is a list")
        return found

    return read


def _not_json(error: ValueError | RecursionError) -> str:
    match error:
        case json.JSONDecodeError():
            return f"this is not JSON: line {error.lineno}, column {error.colno}"
        case RecursionError():
            return "this JSON is nested too deep"
        case _:
            return "this is not JSON: NaN and infinite numbers are not allowed"


_FENCE = re.compile(r"\s*```(?:json)?[ \t]*(?=\r?\n)(.*?)```\s*", re.DOTALL | re.IGNORECASE)


def unfenced(text: str) -> str:
    """Return the text in a fence of Markdown, with the line numbers that it has there; other texts unchanged."""
    found = _FENCE.fullmatch(text)
    return text if found is None else "\n" * text[: found.start(1)].count("\n") + found[1]


def _takes(kind: Any, text: str) -> bool:
    """Whether the type accepts this text unchanged."""
    try:
        adapter(kind).validate_python(text)
    except (ValidationError, InvalidTaskError):
        return False
    return True


def json_value(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or contains infinity or NaN, which Python would accept.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_constant=_no_number, parse_float=_finite)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def read_base64(value: Any) -> Any:
    """Read bytes from base64, or from a file that was uploaded, as standard base64."""
    text = read_file(value)
    if not isinstance(text, str):
        return text
    text = "".join(text.split()).rstrip("=").translate(_STANDARD)
    try:
        return base64.b64encode(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)).decode()
    except (binascii.Error, ValueError):
        raise Unreadable("write base64, for instance aGVsbG8=") from None


_STANDARD = str.maketrans("-_", "+/")
"""From the alphabet for URLs to the standard one."""


def read_file(value: Any) -> Any:
    """Return the base64 text of the only file of an upload, or of a data URL; other values unchanged."""
    files = cast("list[Any]", value) if isinstance(value, list) else []  # type: ignore[redundant-cast]
    if len(files) == 1 and isinstance(files[0], dict):
        value = cast("dict[str, Any]", files[0]).get("data", value)
    if isinstance(value, str) and value.startswith("data:"):
        return value.partition(";base64,")[2]
    return cast("Any", value)
