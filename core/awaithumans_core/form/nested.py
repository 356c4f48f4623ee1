"""Reading of numbers that people type inside a structure: in a box for JSON, or in the cells of a table.

A text is read like the text of a field of its own, by the type that the structure has at its place. Everything else in
the structure is left to the class.
"""

import collections
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as AbstractSequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias, cast, get_args, get_origin

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.choices import choices
from awaithumans_core.form.refusal import Unreadable
from awaithumans_core.form.texts import Reader
from awaithumans_core.schema.classes import Field, bare, fields

ReaderOf: TypeAlias = Callable[[Any, tuple[Any, ...]], Reader | None]
"""Returns the reader of a type with its annotations; None if its text is left to the class."""

COLLECTIONS = (list, set, frozenset, collections.deque, AbstractSequence, AbstractSet)


def entry_of(kind: Any) -> Any:
    """Return the X of `list[X]`, `set[X]`, `tuple[X, ...]` and the like; None for every other type."""
    args = get_args(kind)
    match get_origin(kind):
        case origin if origin in COLLECTIONS and len(args) == 1:
            return args[0]
        case origin if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
            return args[0]
        case _:
            return None


def read_nested(value: Any, annotation: Any, reader_of: ReaderOf) -> Any:
    """Return a value with the texts of numbers in it read.

    Raises:
        Unreadable: a text at the place of a number has no reading, or more than one.
    """
    kind, rules, _ = bare(annotation)
    if isinstance(value, str):
        reader = reader_of(kind, rules)
        return value if reader is None else reader(value)
    if isinstance(value, list):
        return _read_list(cast("list[Any]", value), kind, reader_of)  # type: ignore[redundant-cast]
    if isinstance(value, dict):
        return _read_object(cast("dict[str, Any]", value), kind, reader_of)
    return value


def _read_list(values: list[Any], kind: Any, reader_of: ReaderOf) -> list[Any]:
    entry = entry_of(kind)
    places: Iterable[Any] = get_args(kind) if entry is None and get_origin(kind) is tuple else [entry] * len(values)
    if (entry is None and get_origin(kind) is not tuple) or len(values) != len(tuple(places)):
        return values
    return [
        _inside(number, each, place, reader_of) for number, (each, place) in enumerate(zip(values, places, strict=True))
    ]


def _read_object(value: dict[str, Any], kind: Any, reader_of: ReaderOf) -> dict[str, Any]:
    if get_origin(kind) in (dict, Mapping) and len(get_args(kind)) == 2:
        return {name: _inside(name, each, get_args(kind)[1], reader_of) for name, each in value.items()}
    found = dict(value)
    for field in _fields_for(value, kind):
        if field.name not in found:
            continue
        given = found[field.name]
        if isinstance(given, str) and not given.strip() and reader_of(field.type, field.rules) is not None:
            _leave_blank(found, field)
        else:
            found[field.name] = _inside(field.name, given, _annotation(field), reader_of)
    return found


def _leave_blank(value: dict[str, Any], field: Field) -> None:
    """Treat a blank number as not filled in."""
    if field.required:
        value[field.name] = None  # the class refuses it, unless it may be null
    else:
        del value[field.name]


def _annotation(field: Field) -> Any:
    return typing.Annotated[(field.type, *field.rules)] if field.rules else field.type


def _inside(place: int | str, value: Any, annotation: Any, reader_of: ReaderOf) -> Any:
    try:
        return read_nested(value, annotation, reader_of)
    except Unreadable as problem:
        raise problem.inside(place) from None


def _fields_for(value: Mapping[str, Any], kind: Any) -> tuple[Field, ...]:
    """Return the fields of the class that a JSON object represents; none if it is no class, or not certain which."""
    if get_origin(kind) not in {typing.Union, types.UnionType}:
        return _fields_of(kind)
    members = [found for each in get_args(kind) if (found := _fields_of(bare(each)[0])) and _may_be(value, found)]
    return members[0] if len(members) == 1 else ()


def _fields_of(kind: Any) -> tuple[Field, ...]:
    try:
        return fields(kind)
    except InvalidTaskError:
        return ()


def _may_be(value: Mapping[str, Any], members: tuple[Field, ...]) -> bool:
    """Whether the object has a possible value for each field that has only some: the tag of a union is one."""
    for member in members:
        known = choices(member.type)
        if known is not None and member.name in value and value[member.name] not in known.values():
            return False
    return True
