"""The choices of a Literal or an Enum: their texts in a form, and the values that they stand for."""

import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_origin

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.schema.classes import literal_values


def choices(kind: Any) -> dict[str, Any] | None:
    """Return the values of a Literal or an Enum by their form text; None for every other type."""
    if get_origin(kind) is Literal:
        return {_literal_text(kind, value): _plain(value) for value in literal_values(kind)}
    if _is_enum(kind):
        return {form_text(member): member.value for member in kind}
    return None


def options(kind: Any) -> list[dict[str, str]]:
    """Return the options that a select shows for a Literal or an Enum.

    Raises:
        InvalidTaskError: the Enum has a value that is neither text nor a number.
    """
    if not _is_enum(kind):
        return [{"value": text, "label": text} for text in choices(kind) or ()]
    if odd := [member.name for member in kind if not isinstance(member.value, str | int | float)]:
        raise InvalidTaskError(
            f"{kind.__name__}.{odd[0]} has a value that no answer can carry: give its members text or numbers"
        )
    return [{"value": form_text(member), "label": member.name.replace("_", " ").capitalize()} for member in kind]


def chosen(known: Mapping[str, Any], choice: object) -> object:
    """Return the value that a form text stands for; other values unchanged."""
    return known.get(choice, choice) if isinstance(choice, str) else choice


def form_text(choice: Any) -> str:
    """Return the text that represents a choice in a form."""
    return str(_plain(choice))


def in_order(kind: Any, chosen: Iterable[Any]) -> list[str]:
    """Return the form texts of some choices. Those of a set are sorted as in the type, the same in every run."""
    texts = [form_text(each) for each in chosen]
    return [text for text in choices(kind) or () if text in texts] if isinstance(chosen, set | frozenset) else texts


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _plain(choice: Any) -> Any:
    return choice.value if isinstance(choice, enum.Enum) else choice


def _literal_text(kind: Any, value: Any) -> str:
    """Return the form text of a value of a Literal. A text that looks like another value is quoted."""
    text = form_text(value)
    if isinstance(_plain(value), str) and any(
        form_text(other) == text and not isinstance(_plain(other), str) for other in literal_values(kind)
    ):
        return json.dumps(text)
    return text
