"""Conversion of what a form submits into an answer that the response class accepts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from awaithumans_core.form.definition import CONFIRMED
from awaithumans_core.form.inputs import Input, inputs
from awaithumans_core.form.refusal import Unreadable
from awaithumans_core.schema.classes import Field, fields


class Reading(NamedTuple):
    """An answer as far as it could be read."""

    answer: dict[str, Any]
    """The values by name. A value that could not be read is the one that was submitted."""
    problems: dict[str, str]
    """One line about each value that could not be read, with what to write instead, by the name of the field."""


def answer_from_form(response: Mapping[str, Any], response_schema: Any) -> dict[str, Any]:
    """Convert what form inputs submit: text for a number or an option, JSON for a structure, blank for "not filled in".

    Values that already have the right type are returned unchanged, so answers given through the API do not change. A
    value that cannot be read is returned unchanged as well; `settle` refuses it.
    """
    return read_form(response, response_schema).answer


def read_form(response: Mapping[str, Any], response_schema: Any) -> Reading:
    """Convert what form inputs submit, and report the values that cannot be read."""
    reading = Reading(dict(response), {})
    known, found = inputs(response_schema), fields(response_schema)
    for field in found:
        _read(field, known[field.name].input, reading)
    if not found and reading.answer.pop(CONFIRMED, True) is not True:
        reading.problems[CONFIRMED] = Unreadable("choose Yes to confirm").problem(CONFIRMED)
    return reading


def _read(field: Field, known: Input, reading: Reading) -> None:
    answer = reading.answer
    value = answer.get(field.name)
    if _is_blank(field, value):
        if field.nullable and field.required:
            answer[field.name] = None
        elif field.name in answer:
            _leave_blank(field, known, answer)
        return
    if value is None:
        return
    try:
        answer[field.name] = known.read(value)
    except Unreadable as problem:
        reading.problems[field.name] = problem.problem(field.name)


def _is_blank(field: Field, value: object) -> bool:
    """Whether an input was not filled in. For text that may be null, an empty text is an answer."""
    if value is None:
        return not field.nullable or field.required
    return isinstance(value, str) and not value.strip() and field.type is not str


def _leave_blank(field: Field, known: Input, answer: dict[str, Any]) -> None:
    if not _preselected(field, known):
        if not field.required:
            del answer[field.name]  # not filled in: the class's own default applies
    elif field.type is bool:
        answer[field.name] = None


def _preselected(field: Field, known: Input) -> bool:
    """Whether the form shows the default as already chosen. A person who clears it has not chosen the default."""
    if known.initial is None:
        return False
    preset = known.shape.get("default", field.preset)
    return preset is True if field.type is bool else preset is not None
