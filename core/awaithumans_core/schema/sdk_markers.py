"""Annotations of the official SDK (`awaithumans.forms`: switch, long_text, file_upload, ...) on fields of a class.

They are recognised by their shape, so that the SDK is not imported. They are pydantic models themselves, and pydantic
takes a model among the annotations of a field for the type of the field: it would expect the answer to a switch to be a
`Switch`. The core schema of a class is therefore corrected where a field has one.
"""

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import TypeAdapter
from pydantic_core import CoreSchema

INPUT_KINDS = frozenset(
    {
        *("short_text", "long_text", "rich_text"),
        *("switch", "single_select", "multi_select", "picture_choice"),
        *("slider", "star_rating", "opinion_scale", "ranking"),
        *("date", "datetime", "date_range", "time"),
        *("file_upload", "signature", "table", "subform"),
    }
)
"""Kinds of inputs that the server knows."""

DISPLAY_KINDS = frozenset(
    {"display_text", "image", "video", "pdf_viewer", "html", "section", "divider", "section_collapse"}
)
"""Kinds of parts of a form that show something and submit no value under their own name."""

TEXT_KINDS = frozenset({"short_text", "long_text", "rich_text"})
"""Kinds of inputs that submit what a person types."""


def is_marker(rule: object) -> bool:
    """Whether an annotation is one of the official SDK."""
    kind = getattr(rule, "kind", None)
    return isinstance(kind, str) and kind in INPUT_KINDS | DISPLAY_KINDS and callable(getattr(rule, "model_dump", None))


def sdk_marker(rules: Iterable[Any]) -> dict[str, Any] | None:
    """Return the first marker of the official SDK among annotations, as the JSON of a form field; None without one."""
    marker: Any = next(filter(is_marker, rules), None)
    if marker is None:
        return None
    return cast("dict[str, Any]", marker.model_dump(mode="json", exclude_none=marker.kind not in _WITH_NULLS))


_WITH_NULLS = frozenset({"table", "subform"})
"""Kinds of inputs whose maximum the dashboard compares with null: without it, no row can be added."""


def unmarked(annotation: Any, rules: Iterable[Any] = ()) -> Any:
    """Return a type with these annotations, without markers of the official SDK."""
    if get_origin(annotation) is Annotated:
        inner, *others = get_args(annotation)
        return unmarked(inner, [*others, *rules])
    if get_origin(annotation) in {Union, UnionType}:
        annotation = Union[tuple(unmarked(each) for each in get_args(annotation))]  # noqa: UP007 - made at run time
    kept = tuple(rule for rule in rules if not is_marker(rule))
    return Annotated[(annotation, *kept)] if kept else annotation


def corrected(core: CoreSchema, types: Iterable[tuple[Mapping[str, Any], Any]]) -> CoreSchema:
    """Return a copy of a core schema in which some fields have other types.

    Args:
        core: The core schema of a class.
        types: A field in the core schema, and the type that it has.
    """
    fields = {id(field): _typed(field, kind) for field, kind in types}
    return cast("CoreSchema", _replaced(core, fields))


def _typed(field: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    schema: Any = TypeAdapter(kind).core_schema
    held: Mapping[str, Any] = field["schema"]
    return {**field, "schema": {**held, "schema": schema} if held["type"] == "default" else schema}


def _replaced(part: Any, others: Mapping[int, Any]) -> Any:
    if isinstance(part, list | tuple):
        copies = [_replaced(each, others) for each in cast("Iterable[Any]", part)]
        return tuple(copies) if isinstance(part, tuple) else copies
    if not isinstance(part, dict):
        return part
    if id(cast("object", part)) in others:
        return others[id(cast("object", part))]
    return {key: _replaced(value, others) for key, value in cast("dict[str, Any]", part).items()}
