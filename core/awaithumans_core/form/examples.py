"""Examples of JSON values, made from a JSON Schema, for boxes that take JSON."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from awaithumans_core.json_values import holds_yes

Schema = Mapping[str, Any]

MAX_DEPTH = 6
"""Depth to which an example is made. A class may contain itself."""

MAX_ENTRIES = 3
"""Maximum number of equal entries in a list that needs several."""

MAX_CHARS = 300
"""Maximum length of an example in a hint. A longer one contains the required parts only."""


def _any_value(_: Any) -> bool:
    return True


def example_text(schema: Schema, root: Schema, accepts: Callable[[Any], bool] = _any_value) -> str:
    """Return an example of a JSON value on one line, or one of each alternative; "" if none is accepted.

    It contains no True: a person who submits the example unchanged has not said yes. Alternatives are sorted, because
    Python may change the order of a union's types from run to run.

    Args:
        schema: The schema of the value.
        root: The schema that `$ref`s refer to.
        accepts: Whether a value fits. A schema does not state every rule of a class.
    """
    choices = _preferred(alternatives(schema, root))
    fitting: list[str] = []
    for everything in (True, False):
        made = {_written(each, root, everything=everything) for each in choices}
        found = sorted(text for text in made if accepts(json.loads(text)))
        if found and len(text := " or ".join(found)) <= MAX_CHARS:
            return text
        fitting = found or fitting
    return fitting[0] if fitting else ""


def _preferred(choices: list[Schema]) -> list[Schema]:
    """Return the alternatives without texts that must match a pattern, such as those of a Decimal, if there are others.

    An example of such a text cannot be made from the pattern.
    """
    return [each for each in choices if "pattern" not in each] or choices


def alternatives(schema: Schema, root: Schema, depth: int = 0) -> list[Schema]:
    """Return the alternatives of a schema without null, or the schema itself if it has none."""
    schema = resolved(schema, root)
    some: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    if not some or depth > MAX_DEPTH:
        return [schema]
    return [each for one in some if one.get("type") != "null" for each in alternatives(one, root, depth + 1)]


def resolved(schema: Schema, root: Schema) -> Schema:
    """Return a schema with its references followed."""
    for _ in range(MAX_DEPTH):
        if not isinstance(ref := schema.get("$ref"), str):
            break
        schema = cast("Schema", root.get("$defs", {}).get(ref.rsplit("/", 1)[-1], {}))
    return schema


def _written(schema: Schema, root: Schema, *, everything: bool) -> str:
    return json.dumps(_Examples(root, everything).make(schema, 0), ensure_ascii=False)


class _Examples:
    def __init__(self, root: Schema, everything: bool) -> None:  # noqa: FBT001 - private, and named by its caller
        self._root = root
        self._everything = everything

    def make(self, given: Schema, depth: int) -> Any:
        if depth > MAX_DEPTH:
            return None
        choices = _preferred(alternatives(given, self._root))
        if any(each.get("type") == "number" for each in choices):  # a Decimal is a number or the text of one
            choices = [each for each in choices if each.get("type") != "string"]
        return min((self._made(each, depth) for each in choices), key=json.dumps, default=None)

    def _made(self, schema: Schema, depth: int) -> Any:
        if (examples := schema.get("examples")) and not holds_yes(examples[0]):
            return examples[0]
        if "const" in schema:
            return None if schema["const"] is True else schema["const"]
        if some := schema.get("enum"):
            return next((each for each in some if each is not True), some[0])
        if some := schema.get("allOf"):
            return self.make(some[0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else None)
        return _MAKERS.get(kind, _anything)(self, schema, depth)

    def object(self, schema: Schema, depth: int) -> Any:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        required = schema.get("required", ())
        shown = {
            name: self.make(part, depth + 1)
            for name, part in properties.items()
            if name in required or (self._everything and depth < MAX_DEPTH // 2)
        }
        if not properties and isinstance(others := schema.get("additionalProperties", {}), Mapping):
            keys: Any = self.make(schema["propertyNames"], depth + 1) if "propertyNames" in schema else "key"
            return {str(keys): self.make(cast("Schema", others), depth + 1) if others else "value"}
        return shown

    def array(self, schema: Schema, depth: int) -> Any:
        if places := schema.get("prefixItems"):
            return [self.make(place, depth + 1) for place in places]
        items: Schema = schema.get("items", {})
        count = 1 if schema.get("uniqueItems") else min(max(schema.get("minItems", 1), 1), MAX_ENTRIES)
        return [self.make(items, depth + 1)] * count if items else ["a", "b"]


def _text(_: _Examples, schema: Schema, __: int) -> Any:
    text = _FORMATS.get(schema.get("format", ""), "text")
    return text[: schema.get("maxLength", len(text))].ljust(schema.get("minLength", 0), "x")


_FORMATS: Mapping[str, str] = {
    "base64": "aGVsbG8=",
    "base64url": "aGVsbG8=",
    "binary": "aGVsbG8=",
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "PT1H30M",
    "email": "person@example.com",
    "ipv4": "192.0.2.1",
    "ipv4interface": "192.0.2.1/24",
    "ipv4network": "192.0.2.0/24",
    "ipv6": "2001:db8::1",
    "ipv6interface": "2001:db8::1/32",
    "ipv6network": "2001:db8::/32",
    "time": "12:00:00",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
"""An example of each format of text that pydantic's JSON Schemas name."""


def _number(_: _Examples, schema: Schema, __: int) -> Any:
    step = schema.get("multipleOf", 1)
    lowest = schema.get("minimum", schema.get("exclusiveMinimum"))
    highest = schema.get("maximum", schema.get("exclusiveMaximum"))
    if lowest is None:
        lowest = min(step, highest - step) if highest is not None else step
    number = -(-lowest // step) * step
    return number + step if number == schema.get("exclusiveMinimum") else number


def _false(_: _Examples, __: Schema, ___: int) -> Any:
    return False


def _null(_: _Examples, __: Schema, ___: int) -> Any:
    return None


def _anything(_: _Examples, __: Schema, ___: int) -> Any:
    return {"key": "value"}


_MAKERS: Mapping[Any, Callable[[_Examples, Schema, int], Any]] = {
    "array": _Examples.array,
    "boolean": _false,
    "integer": _number,
    "null": _null,
    "number": _number,
    "object": _Examples.object,
    "string": _text,
}
