"""Validation of answers in which bytes are base64.

JSON has no bytes. pydantic reads a text for bytes as UTF-8 unless a class says otherwise, so that an answer could not
contain any other bytes. The core schema of a response class is therefore copied with bytes that are read from base64.
A class that sets `val_json_bytes`, and a type that decodes its text itself (`Base64Bytes`), is left as it is.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import EncodedBytes
from pydantic_core import CoreSchema, PydanticCustomError

from awaithumans_core.schema.explicit_yes import VALUE_KEYS


def base64_bytes(core: Mapping[str, Any]) -> CoreSchema | None:
    """Return a copy of a core schema in which bytes are read from base64; None if the schema has none."""
    copier = _Copier()
    copied = copier.copy({**core})
    return cast("CoreSchema", copied) if copier.changed else None


class _Copier:
    def __init__(self) -> None:
        self.changed = False

    def copy(self, part: Any) -> Any:
        if isinstance(part, list | tuple):
            copies = [self.copy(each) for each in cast("Iterable[Any]", part)]
            return tuple(copies) if isinstance(part, tuple) else copies
        if not isinstance(part, dict):
            return part
        held = cast("dict[str, Any]", part)
        if held.get("type") == "bytes":
            self.changed = True
            return {"type": "function-before", "function": {"type": "no-info", "function": _decoded}, "schema": held}
        if _decodes_itself(held):
            return held
        named = not isinstance(held.get("type"), str)  # schemas by name: fields, choices, parameters
        return {key: self.copy(value) if named or key not in VALUE_KEYS else value for key, value in held.items()}


def _decodes_itself(held: Mapping[str, Any]) -> bool:
    settings: Mapping[str, Any] = held.get("config") or {}
    function: Any = held.get("function")
    inner = cast("Mapping[str, Any]", function).get("function") if isinstance(function, Mapping) else None
    return "val_json_bytes" in settings or isinstance(getattr(inner, "__self__", None), EncodedBytes)


def _decoded(value: object) -> object:
    """Decode the text of an answer; values of other types are left to the validation that follows."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.translate(_STANDARD) + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("bytes_base64", "Input should be base64, for instance aGVsbG8=") from None


_STANDARD = str.maketrans("-_", "+/")
"""From the alphabet for URLs to the standard one."""
