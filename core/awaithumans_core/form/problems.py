"""The problems of an answer in the words in which the person who is asked again reads them."""

from collections.abc import Iterable, Mapping
from typing import Any

from awaithumans_core.form.hints import label_of

NOTHING_ENTERED = "nothing was entered"
"""Text of a problem for an input that was left blank although an answer needs it."""


def shown_problems(problems: Iterable[str], form: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the problems of an answer in the words of its form: labels instead of names, positions counted from 1.

    Args:
        problems: Lines of the form `name: text`, or `name.0.part: text` for a part of a value.
        form: The form that the person has filled in.
    """
    labels = {part["name"]: part.get("label") or label_of(part["name"]) for part in form["fields"] if part.get("name")}
    return tuple(_shown(problem, labels) for problem in problems)


def _shown(problem: str, labels: Mapping[str, str]) -> str:
    names = [name for name in labels if problem.startswith((f"{name}: ", f"{name}."))]
    if not names:
        return problem
    name = max(names, key=len)
    path, _, text = problem.removeprefix(name).partition(": ")
    places = [f"[{int(part) + 1}]" if part.isdecimal() else label_of(part) for part in path.split(".") if part]
    return f"{' '.join((labels[name], *places))}: {NOTHING_ENTERED if text == _REQUIRED else text}"


_REQUIRED = "Field required"
"""The text of pydantic for a value that is missing."""
