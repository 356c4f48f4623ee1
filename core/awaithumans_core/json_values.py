"""What goes over the wire as JSON: checked before it is sent, and read however deep it is nested."""

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, cast

from pydantic import BaseModel
from pydantic.types import JsonValue
from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

from awaithumans_core.errors import InvalidTaskError

MAX_DEPTH = 100
"""How deep a payload is searched for sets; JSON nests less."""
_PLAIN = (str, int, float, type(None))


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Of JSON. The group is half a character, without its other half."""


def whole(body: bytes) -> bytes:
    """JSON with a replacement character for every half of one.

    A browser sends half an emoji when a field's limit has cut it in two, and the server takes and signs it. It answers
    500 to every later reading of that task, so the callback is the only way on which the answer can come.
    """
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], body)


def read_json(body: bytes) -> JsonValue:
    """What a body says. pydantic's reader is the faster one, the standard library's goes deeper.

    Raises:
        ValueError: it is not JSON, or nested too deep for either.
    """
    try:
        return cast("JsonValue", from_json(body))
    except ValueError:
        try:
            return cast("JsonValue", json.loads(whole(body).decode()))
        except RecursionError:
            raise ValueError("nested too deep") from None


def json_object(value: Any, name: str) -> dict[str, Any]:
    """A value as JSON has it; nothing is an empty object.

    Raises:
        InvalidTaskError: it is no object with named fields, or JSON cannot say it, or not in the same way twice.
    """
    if value is None:
        return {}
    if _holds_a_set(value):
        raise InvalidTaskError(f"{name} holds a set, whose order differs from run to run: give a sorted list")
    try:
        plain: JsonValue = to_jsonable_python(value)
        json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise InvalidTaskError(f"{name} cannot be written as JSON: {error}") from None
    if not isinstance(plain, dict):
        raise InvalidTaskError(
            f"{name} must be an object with named fields (a model, a dataclass or a dict), not {plain!r}"
        )
    return plain


def _holds_a_set(value: Any, depth: int = 0) -> bool:
    """Whether there is a set in it, whose order would make the same question another one after a restart."""
    if depth > MAX_DEPTH or isinstance(value, _PLAIN):
        return False
    if isinstance(value, set | frozenset):
        return len(cast("set[Any]", value)) > 1
    return any(_holds_a_set(each, depth + 1) for each in _held(value))


def holds_yes(value: Any, depth: int = 0) -> bool:
    """Whether a value is True, or holds a True at any depth. What is nested too deep to read counts as one."""
    if value is True or depth > MAX_DEPTH:
        return True
    if isinstance(value, Enum):
        return value.value is True
    held = cast("Iterable[Any]", value) if isinstance(value, set | frozenset) else _held(value)
    return any(holds_yes(each, depth + 1) for each in held)


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, dict | list | tuple):  # most of what there is, and found sooner than any Mapping
        return cast("Iterable[Any]", value.values() if isinstance(value, dict) else value)
    if isinstance(value, BaseModel):
        return (*vars(value).values(), *(value.model_extra or {}).values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, each.name, None) for each in fields(value)]
    if isinstance(value, Mapping):
        return cast("Iterable[Any]", value.values())
    return cast("Iterable[Any]", value) if isinstance(value, deque) else ()
