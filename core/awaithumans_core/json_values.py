"""JSON values of requests and replies: checked before they are sent, and parsed even if nested deep."""

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
"""Depth to which a payload is searched for sets. JSON is nested less deep."""
_PLAIN = (str, int, float, type(None))


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape sequence of JSON. The group matches a surrogate without its other half."""


def whole(body: bytes) -> bytes:
    """Return JSON with a replacement character in place of every unpaired surrogate.

    A browser sends half an emoji if a field's limit has cut it in two, and the server accepts and signs it. The server
    replies 500 to every later read of that task, so the answer can arrive only by callback.
    """
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], body)


def read_json(body: bytes) -> JsonValue:
    """Parse a JSON body. pydantic's parser is faster, and the standard library's allows deeper nesting.

    Raises:
        ValueError: it is not JSON, or nested too deep for either parser.
    """
    try:
        return cast("JsonValue", from_json(body))
    except ValueError:
        try:
            return cast("JsonValue", json.loads(whole(body).decode()))
        except RecursionError:
            raise ValueError("nested too deep") from None


def json_object(value: Any, name: str) -> dict[str, Any]:
    """Return a value as a JSON object; None becomes an empty object.

    Raises:
        InvalidTaskError: it is not an object with named fields, it cannot be written as JSON, or its JSON would differ
            from run to run.
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
    """Whether a value contains a set, whose order would turn the question into a different one after a restart."""
    if depth > MAX_DEPTH or isinstance(value, _PLAIN):
        return False
    if isinstance(value, set | frozenset):
        return len(cast("set[Any]", value)) > 1
    return any(_holds_a_set(each, depth + 1) for each in _held(value))


def holds_yes(value: Any, depth: int = 0) -> bool:
    """Whether a value is True, or contains a True at any depth. A value that is nested too deep counts as True."""
    if value is True or depth > MAX_DEPTH:
        return True
    if isinstance(value, Enum):
        return value.value is True
    held = cast("Iterable[Any]", value) if isinstance(value, set | frozenset) else _held(value)
    return any(holds_yes(each, depth + 1) for each in held)


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, dict | list | tuple):  # the most common types, faster to detect than Mapping
        return cast("Iterable[Any]", value.values() if isinstance(value, dict) else value)
    if isinstance(value, BaseModel):
        return (*vars(value).values(), *(value.model_extra or {}).values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, each.name, None) for each in fields(value)]
    if isinstance(value, Mapping):
        return cast("Iterable[Any]", value.values())
    return cast("Iterable[Any]", value) if isinstance(value, deque) else ()
