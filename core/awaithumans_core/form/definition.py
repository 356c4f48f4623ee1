"""The form of a response class in the server's format."""

from collections.abc import Sequence
from typing import Any

from awaithumans_core.display.text_block import text_block
from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.hints import hint_of, label_of
from awaithumans_core.form.inputs import MAX_SHORT_TEXT, Input, Marked, inputs
from awaithumans_core.json_values import holds_yes, json_object
from awaithumans_core.safe_text import one_line
from awaithumans_core.schema.classes import Above, Field, Hint, fields, once
from awaithumans_core.schema.sdk_markers import DISPLAY_KINDS

FORM_VERSION = 1
"""The form `version` that the server of 2026 understands."""

CONFIRMED = "confirmed"
"""The field in the form of a class without fields. It is not part of the answer."""

_CONFIRMATION = {
    "name": CONFIRMED,
    "label": "Confirm",
    "required": True,
    "kind": "switch",
    "true_label": "Yes",
    "false_label": "No",
}


def form_definition(response_schema: Any) -> dict[str, Any]:
    """Return the server's form for a response class: `{"version": 1, "fields": [...]}`.

    Takes a pydantic model, a dataclass or a TypedDict. Titles become labels, descriptions become hints, and bounds are
    part of the hints. Types map to inputs:

    - bool a switch; Literal and Enum a single select; a list, set or tuple of them a multi select;
    - str a short text, a text area if it may have more than 200 characters;
    - numbers, money, identifiers, durations, paths, URLs, e-mail and IP addresses a short text;
    - date, datetime and time their pickers, with the time zone in the label if the time has one;
    - bytes a text area that takes base64;
    - a list, set or tuple of text, numbers, dates and the like a text area with one entry per line;
    - anything else a text area that takes JSON, with an example.

    A type alias or a NewType gets the input of the type it names. Markers of the official SDK replace the input. The
    form of a class without fields is a switch to confirm.

    A default is the initial value of a switch or a select, so the reviewer sees what they submit. A default that is
    True, or contains a True, counts only if the answer contains it.

    Raises:
        InvalidTaskError: the class is none of these, so it has no named fields for a person to fill in.
    """
    found = fields(response_schema)
    if any(field.info.default_factory is not None for field in found):  # it may return another default every time
        return _form(response_schema, found)
    return dict(once(response_schema, "__awaithumans_form__", lambda: _form(response_schema, found)))


def _form(response_schema: Any, found: Sequence[Field]) -> dict[str, Any]:
    known = inputs(response_schema)
    shown = [part for field in found for part in (*_above(field), _shown(field, known[field.name]))]
    return json_object({"version": FORM_VERSION, "fields": shown or [_CONFIRMATION]}, "the form")


def _above(field: Field) -> list[dict[str, Any]]:
    return [text_block(rule.label, rule.text) for rule in field.rules if isinstance(rule, Above)]


def _shown(field: Field, marked: Marked) -> dict[str, Any]:
    known = marked.input
    if known.shape["kind"] in DISPLAY_KINDS and field.required:
        raise InvalidTaskError(
            f"field {field.name!r} only shows something ({known.shape['kind']}), so no answer contains it: give it a "
            "default"
        )
    label = one_line(field.info.title or marked.label or label_of(field.attribute))
    if known.unit and known.unit not in label:
        label = f"{label} ({known.unit})"
    blank, shape = "", _shape(field, known)
    if known.initial is not None:
        if field.preset is not None and (start := known.initial(field.preset)) is not None and "default" not in shape:
            shape["default"] = start
    elif not known.box and field.preset not in (None, "") and not isinstance(field.preset, bytes):
        blank = str(field.preset)
    shown = {"name": field.name, "label": label, "required": field.required and not field.nullable}
    if known.box:
        shown["required"] = shown["required"] or holds_yes(field.default)
    own = next((rule.text for rule in field.rules if isinstance(rule, Hint)), None)
    if hint := own or hint_of(field.info.description or marked.hint, known.expected, known.limit, blank):
        shown["hint"] = one_line(hint)
    if shape["kind"] == "single_select" and "default" in shape:
        shown["required"] = True  # the dashboard omits a choice that is not required and was cleared
    return shown | shape


def _shape(field: Field, known: Input) -> dict[str, Any]:
    """Return the input of a field. A long text that is the initial value of a field gets a text area."""
    preset: Any = field.preset
    if field.type is str and isinstance(preset, str) and ("\n" in preset or len(preset) > MAX_SHORT_TEXT):
        return {"kind": "long_text"} | {
            name: value for name, value in known.shape.items() if name in {"min_length", "max_length"}
        }
    return dict(known.shape)
