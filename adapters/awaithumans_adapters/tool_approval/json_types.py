"""Python types made from JSON Schema, from which a form can be built and with which its answer is checked.

Parts of a schema that these types do not express (conditions between fields, patterns of property names) are not
checked. If such a part has defaults that are a yes, an answer must state its value and not leave it to a default.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, Union, cast

from pydantic import AfterValidator, BaseModel, Field, create_model

from awaithumans_core.form import label_of
from awaithumans_core.json_values import holds_yes
from awaithumans_core.schema.classes import bare

Schema = Mapping[str, Any]

MAX_DEPTH = 4
"""Maximum depth.

Deeper parts, and classes that contain themselves, accept any value, since people type them as JSON.
"""

_PLAIN: Mapping[tuple[Any, Any], Any] = {
    ("boolean", None): bool,
    ("integer", None): int,
    ("null", None): None,
    ("number", None): float,
    ("number", "decimal"): Decimal,
    ("object", None): dict[str, Any],
    ("string", None): str,
    ("string", "date"): date,
    ("string", "date-time"): datetime,
    ("string", "time"): time,
}
"""JSON type and format -> Python type. A string with an unknown format is text.

The format `decimal` is that of `arguments_schema`.
"""

_RULES = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}


def arguments_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a class, in which a property that is an exact decimal is a number of that format.

    pydantic writes it as a number or any text, like a property that may be either.
    """
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        kind, _, _ = bare(field.annotation)
        if kind is Decimal:
            part = schema["properties"][field.alias or name]
            either: list[dict[str, Any]] = part.pop("anyOf", [])
            part |= next(each for each in [*either, {}] if each.get("type", "number") == "number")
            part |= {"type": "number", "format": "decimal"}
    return schema


def object_type(schema: Schema, root: Schema, depth: int = 0) -> type[BaseModel]:
    """Return a class that has the properties of an object schema as fields."""
    needed = schema.get("required", ())
    fields: dict[str, Any] = {}
    for number, (name, given) in enumerate(schema["properties"].items()):
        said = resolved(given, root)
        about: dict[str, Any] = {
            "alias": name,
            "title": said.get("title") or label_of(name),
            "description": said.get("description"),
        }
        default = ... if name in needed else said.get("default")
        fields[f"field_{number}"] = (json_type(said, root, depth + 1), Field(default, **about))
    return create_model(str(schema.get("title", "Answer")), **fields)


def json_type(schema: Schema, root: Schema, depth: int = 0) -> Any:
    """Return the type for a schema, which pydantic can check.

    Args:
        schema: The schema, or a part of one.
        root: The schema that `$ref`s refer to.
        depth: Depth of this part within it.
    """
    said = resolved(schema, root)
    kind = said.get("type")
    if depth > MAX_DEPTH:
        return _unchecked(Any, said, root)
    if choices := said.get("enum") or ([said["const"]] if "const" in said else None):
        return Literal[tuple(choices)]
    if some := said.get("anyOf") or said.get("oneOf"):
        return Union[tuple(json_type(each, root, depth + 1) for each in some)]  # noqa: UP007  # made at run time
    if isinstance(kind, list):
        each_kind = cast("Sequence[str]", kind)
        return Union[tuple(json_type({**said, "type": one}, root, depth + 1) for one in each_kind)]  # noqa: UP007
    if kind == "array" and _may_give_yes(places := said.get("prefixItems", []), root):
        return tuple[tuple(json_type(each, root, depth + 1) for each in places)]  # type: ignore[misc]  # likewise
    if kind == "array":
        return list[json_type(said.get("items", {}), root, depth + 1)]  # type: ignore[misc]  # made at run time
    if said.get("properties"):
        return object_type(said, root, depth)
    if kind == "object" and isinstance(values := said.get("additionalProperties"), Mapping):
        return dict[str, json_type(cast("Schema", values), root, depth + 1)]  # type: ignore[misc]  # made at run time
    if (plain := (kind, said.get("format"))) not in _PLAIN and (plain := (kind, None)) not in _PLAIN:
        return _unchecked(Any, said, root)
    if kind == "object":
        return _unchecked(dict[str, Any], said, root)
    rules = {
        rule: said[word]
        for word, rule in _RULES.items()
        if word in said and _PLAIN[plain] in {str, int, float, Decimal}
    }
    return Annotated[_PLAIN[plain], Field(**rules)] if rules else _PLAIN[plain]


def _unchecked(kind: Any, schema: Schema, root: Schema) -> Any:
    """Return a type for a part that is not checked.

    It excludes objects if the schema's defaults could add a yes to them.
    """
    return Annotated[kind, AfterValidator(_without_objects)] if _may_give_yes(schema, root) else kind


def _without_objects(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise ValueError("an object whose defaults are True, which cannot be checked here")  # noqa: TRY004  # pydantic's
    if isinstance(value, list):
        for each in cast("Sequence[Any]", value):
            _without_objects(each)
    return cast("Any", value)


def _may_give_yes(part: Any, root: Schema, seen: set[str] | None = None) -> bool:
    """Whether a part of a schema, or a schema it refers to, has a default that is a yes."""
    seen = set() if seen is None else seen
    if isinstance(part, list):
        return any(_may_give_yes(each, root, seen) for each in cast("Sequence[Any]", part))
    if not isinstance(part, Mapping):
        return False
    schema = cast("Schema", part)
    parts: list[Any] = list(schema.values())
    if isinstance(place := schema.get("$ref"), str) and place not in seen:
        seen.add(place)
        parts.append(resolved({"$ref": place}, root))
    return holds_yes(schema.get("default")) or any(_may_give_yes(each, root, seen) for each in parts)


def optional(kind: Any) -> Any:
    """Return the type, extended by null."""
    return Optional[kind]  # noqa: UP045  # made at run time


def resolved(schema: Schema, root: Schema) -> Schema:
    """Return the schema that a `$ref` points to, merged with the keywords beside the `$ref`."""
    said = dict(schema)
    for _ in range(MAX_DEPTH):
        if len(said.get("allOf", ())) == 1:
            said = {**said.pop("allOf")[0], **said}
        if not (place := str(said.pop("$ref", ""))).startswith("#/"):
            break
        found: Any = root
        for step in place[2:].split("/"):
            found = found.get(step, {})
        said = {**found, **said}
    return said
