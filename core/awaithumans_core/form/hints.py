"""Labels and hints: what a reviewer reads about a field."""

import re
from collections.abc import Iterator
from typing import Any

_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\s]+")


def label_of(attribute: str) -> str:
    """Return the name of a field as words, for instance "Is ok" for `is_ok` and for `isOk`."""
    words = [word if word.isupper() and len(word) > 1 else word.lower() for word in _WORD_ENDS.split(attribute) if word]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def limits(rules: tuple[Any, ...]) -> dict[str, Any]:
    """Return the constraints among the annotations of a field, by their pydantic names."""
    return dict(_limits(rules))


def _limits(rules: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for rule in rules:
        for name in _LIMITS:
            if (value := getattr(rule, name, None)) is not None:
                yield name, getattr(value, "pattern", value)  # a pattern may be compiled or text


_LIMITS = (
    *("ge", "gt", "le", "lt", "multiple_of", "max_digits", "decimal_places"),
    *("min_length", "max_length", "pattern"),
)


def bounds(rules: tuple[Any, ...], unit: str = "") -> str:
    """Return the constraints of a field in words: "1 to 10", "at most 50 characters".

    Args:
        rules: The annotations of the field.
        unit: What lengths count, in the plural.
    """
    known = limits(rules)
    return ", ".join(
        part
        for part in (
            f"more than {known['gt']}" if "gt" in known else "",
            _range(known.get("ge"), known.get("le")),
            f"less than {known['lt']}" if "lt" in known else "",
            f"a multiple of {known['multiple_of']}" if "multiple_of" in known else "",
            f"at most {_counted(known['max_digits'], 'digits')}" if "max_digits" in known else "",
            f"at most {_counted(known['decimal_places'], 'decimal places')}" if "decimal_places" in known else "",
            _range(known.get("min_length") or None, known.get("max_length"), unit),
            f"must match {known['pattern']}" if "pattern" in known else "",
        )
        if part
    )


def _range(low: Any, high: Any, unit: str = "") -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {_counted(low, unit)}"
    if low is None:
        return f"at most {_counted(high, unit)}"
    return f"exactly {_counted(low, unit)}" if low == high else f"{low} to {_counted(high, unit)}"


def _counted(number: Any, unit: str) -> str:
    if number == 1:
        unit = "entry" if unit == "entries" else unit.removesuffix("s")
    return f"{number} {unit}".strip()


def hint_of(description: str | None, form: str, limit: str, blank: str) -> str:
    """Return the hint of a field.

    Args:
        description: What the class says about the field. It precedes `form`.
        form: How to write a value.
        limit: The bounds of the value, in words.
        blank: What the field is if it is left blank; "" if the form does not say so.
    """
    written = ", ".join(part for part in (form, limit) if part)
    written = written[:1].upper() + written[1:]
    if description and form:
        end = "" if description.rstrip().endswith((".", "!", "?", ":")) else "."
        hint = f"{description.rstrip()}{end} {written}"
    elif description:
        hint = f"{description} ({limit})" if limit else description
    else:
        hint = written
    return f"{hint} (left blank: {blank})".strip() if blank else hint
