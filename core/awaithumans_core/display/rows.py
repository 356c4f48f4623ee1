"""The payload of a question as rows that every channel of the server can show, and back.

The server's channels show a payload as one row per top-level name, with `String(value)` in the dashboard and
`str(value)` in mails and in Slack. A nested value therefore appears as `[object Object]` or as the repr of a Python
object. So the task record carries one row per value: `{"customer": {"address": {"city": "Paris"}}}` becomes
`{"customer / address / city": "Paris"}`, and the second item of a list becomes `items [2]`.

Laws:

- A row cannot imitate another row. Text with line breaks, control characters, bidirectional or invisible characters is
  shown as a JSON string in which these are escaped, and so is a name with a character that a path uses.
- Nothing is lost: `original_payload` returns exactly the payload that the caller gave.
- Identity does not move: the record carries the digest of the caller's payload (`PAYLOAD_DIGEST`), and `binding`
  compares that one. The rows may be laid out differently by another release.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from awaithumans_core.binding import PAYLOAD_DIGEST
from awaithumans_core.safe_text import BLOCK_CHARS, json_line, one_line

MAX_ROWS = 100
"""Maximum number of rows. If there are more values, the last row holds the whole payload as JSON."""

_LAST_ROW = re.compile(r"\(\d+ more; all values as JSON\)")
_PATH_CHARS = re.compile(r'[/\[\]"\u2044\u2215\u29f8\uff0f]|^[(\s]|\s$|^$')
"""Characters by which a name could be taken for a path, for a note or for no name."""
_STEP = re.compile(r'("(?:[^"\\]|\\.)*"|[^/\[\]"]+?)((?: \[\d+\])*)(?: / |$)')
_WIDE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u2044\u2215\u29f8\uff0f]| {4,}")
"""Spaces by which a text could reach the next line of a page, and characters that look like the slash of a path."""
_SLACK_PAIR = re.compile(r"(?<![^\W_])([*_~`])(?=\S)(?=[^\n]*?\S\1(?![^\W_]))")
"""The first of two characters between which Slack formats a text."""


def rows(payload: Mapping[str, Any], *, slack: bool = False) -> dict[str, Any]:
    """Return the payload as rows: a path, and a value that is no object and no list.

    A payload that every channel shows as it is equals its rows.

    Args:
        payload: The payload as the caller gave it.
        slack: Whether the rows are shown in Slack, which formats text.
    """
    found = _found(payload)
    if len(found) <= MAX_ROWS:
        return {each.path(slack=slack): each.shown(slack=slack) for each in found}
    kept = set(sorted(range(len(found)), key=lambda index: found[index].depth)[:MAX_ROWS])
    shown = {each.path(slack=slack): each.shown(slack=slack) for index, each in enumerate(found) if index in kept}
    return shown | {f"({len(found) - MAX_ROWS} more; all values as JSON)": json_line(payload)}


def not_shown(payload: Mapping[str, Any]) -> str | None:
    """Return why a person cannot be shown each value of a payload on its own; None if that is possible."""
    found = _found(payload)
    if len(found) > MAX_ROWS:
        return f"it has {len(found)} values, and at most {MAX_ROWS} are shown"
    long = next((each for each in found if isinstance(each.value, str) and len(each.value) > BLOCK_CHARS), None)
    return None if long is None else f"{long.path()} has more than the {BLOCK_CHARS:,} characters that are shown"


def original_payload(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a task record, or of a body as it was sent, as the caller gave it.

    Raises:
        ValueError: the record says that it has rows, and they are not rows of this release.
    """
    payload: dict[str, Any] = record["payload"]
    if PAYLOAD_DIGEST not in (record.get("payload_schema") or {}):
        return payload
    tree: dict[str | int, Any] = {}
    for name, value in payload.items():
        if _LAST_ROW.fullmatch(name):
            return cast("dict[str, Any]", json.loads(value))
        *steps, last = _steps(name)
        place = tree
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = _Leaf(_value(value))
    return cast("dict[str, Any]", _nested(tree))


class _Leaf:
    """A value at the end of a path, which is distinguished from a part of the tree."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _nested(tree: "Mapping[str | int, Any] | _Leaf") -> Any:
    if isinstance(tree, _Leaf):
        return tree.value
    if tree and isinstance(next(iter(tree)), int):
        return [_nested(tree[number]) for number in sorted(cast("Mapping[int, Any]", tree))]
    return {name: _nested(part) for name, part in tree.items()}


def _steps(path: str) -> Iterator[str | int]:
    """Yield the names and the item numbers of a path."""
    end = 0
    while end < len(path):
        found = _STEP.match(path, end)
        if found is None:
            raise ValueError(f"{path!r} is no row of a payload")
        name = found[1]
        yield json.loads(name) if name.startswith('"') else name
        yield from (int(number) for number in re.findall(r"\d+", found[2]))
        end = found.end()


def _value(shown: Any) -> Any:
    if not isinstance(shown, str):
        return shown
    if shown in _EMPTY:
        return _EMPTY[shown]()
    if _LONG_INTEGER.fullmatch(shown):
        return int(shown)
    return json.loads(shown) if shown.startswith('"') else shown


_EMPTY: Mapping[str, type] = {"{}": dict, "[]": list}
_LONG_INTEGER = re.compile(r"-?\d{16,}")
"""An integer that JavaScript may not represent, so it is shown as text."""
_OTHER_VALUES = {"null", "true", "false", "None", "True", "False", *_EMPTY}
"""Texts that look like another value in a channel, so they are shown in quotes."""


class _Found(NamedTuple):
    """A value in a payload."""

    depth: int
    steps: Any
    """The names and item numbers that lead to it, the last one first: `(last, (parent, ...))`."""
    value: Any

    def path(self, *, slack: bool = False) -> str:
        """Return the path as people read it."""
        steps: list[str] = []
        link = self.steps
        while link is not None:
            step, link = link
            steps.append(f" [{step}]" if isinstance(step, int) else f" / {_name(step, slack=slack)}")
        return "".join(reversed(steps)).removeprefix(" / ")

    def shown(self, *, slack: bool) -> Any:
        """Return the value as a row shows it."""
        value = self.value
        if isinstance(value, Mapping):
            return "{}"
        if isinstance(value, list | tuple):
            return "[]"
        if isinstance(value, str):
            return _text(value, slack=slack)
        long = isinstance(value, int) and not isinstance(value, bool) and _LONG_INTEGER.fullmatch(str(value))
        return str(value) if long else value


def _found(payload: Mapping[str, Any]) -> list[_Found]:
    """Return every value in the payload, in its order."""
    found: list[_Found] = []
    left = [_Found(0, None, payload)]
    while left:
        each = left.pop()
        inside: list[tuple[Any, Any]] = []
        if isinstance(each.value, Mapping):
            inside = list(cast("Mapping[str, Any]", each.value).items())
        elif isinstance(each.value, list | tuple):
            inside = list(enumerate(cast("list[Any]", each.value), 1))
        if inside:
            left += (_Found(each.depth + 1, (step, each.steps), part) for step, part in reversed(inside))
        elif each.steps is not None:
            found.append(each)
    return found


def _name(name: str, *, slack: bool) -> str:
    plain = not _PATH_CHARS.search(name) and _is_line(name)
    return name if plain and not (slack and is_markup(name)) else _literal(name, slack=slack)


def _text(text: str, *, slack: bool) -> str:
    other = text.startswith('"') or text in _OTHER_VALUES or _LONG_INTEGER.fullmatch(text)
    return text if not other and _is_line(text) and not (slack and is_markup(text)) else _literal(text, slack=slack)


def _is_line(text: str) -> bool:
    """Whether a channel shows the text as it is, in one line."""
    return not _WIDE.search(text) and text == one_line(text, len(text) or 1)


def _literal(text: str, *, slack: bool) -> str:
    """Return the text as a JSON string, in which hidden characters, wide spaces and, for Slack, markup are escaped."""
    shown = _WIDE.sub(_escaped, json_line(text))
    if slack:
        shown = _SLACK_PAIR.sub(_escaped, shown.replace("<", "\\u003c").replace("&", "\\u0026"))
    return shown


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in found[0])


def is_markup(text: str) -> bool:
    """Whether Slack would show something else than this text: a link, a mention, an entity or a format."""
    return "<" in text or "&" in text or _SLACK_PAIR.search(text) is not None
