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
from typing import Any, cast

from awaithumans_core.binding import PAYLOAD_DIGEST, payload_digest
from awaithumans_core.safe_text import json_line, one_line

MAX_ROWS = 100
"""Maximum number of rows. The values of further rows are shown together, as JSON, in the last one."""

MAX_SLACK_CHARS = 2_900
"""Maximum length of all rows in Slack, which refuses a section of more than 3,000 characters."""

SLACK_VALUE_CHARS = 200
"""Length at which the server cuts a value in Slack."""

_LAST_ROW = re.compile(r"\(\d+ more values?\)")
_PATH_CHARS = re.compile(r'[/\[\]"]|^[(\s]|\s$|^$')
"""Characters by which a name could be taken for a path, for a note or for no name."""
_STEP = re.compile(r'("(?:[^"\\]|\\.)*"|[^/\[\]"]+?)((?: \[\d+\])*)(?: / |$)')
_SLACK_PAIR = re.compile(r"(?<![^\W_])([*_~`])(?=\S)(?=[^\n]*?\S\1(?![^\W_]))")
"""The first of two characters between which Slack formats a text."""


def displayed(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the body of `POST /api/tasks` with its payload as rows.

    A payload whose values are all plain is not changed. Neither is one with `redact_payload`, which no channel shows.

    Args:
        body: `HumanTask.body()`, with the payload as the caller gave it.
    """
    payload = body.get("payload")
    if not isinstance(payload, Mapping) or body.get("redact_payload"):
        return body
    given = cast("Mapping[str, Any]", payload)
    rows = _bounded(_rows(given, slack=_in_slack(body.get("notify"))), slack=_in_slack(body.get("notify")))
    if rows == given:
        return body
    schema = {**body.get("payload_schema", {}), PAYLOAD_DIGEST: payload_digest(given)}
    return {**body, "payload": rows, "payload_schema": schema}


def original_payload(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a task record, or of a body from `displayed`, as the caller gave it.

    Raises:
        ValueError: the record says that it has rows, and they are not rows of this release.
    """
    payload: dict[str, Any] = record["payload"]
    if PAYLOAD_DIGEST not in (record.get("payload_schema") or {}):
        return payload
    rows: dict[str, Any] = {}
    for name, value in payload.items():
        rows |= json.loads(value) if _LAST_ROW.fullmatch(name) else {name: value}
    tree: dict[str | int, Any] = {}
    for name, value in rows.items():
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
    return json.loads(shown) if shown.startswith('"') else shown


_EMPTY: Mapping[str, type] = {"{}": dict, "[]": list}


def _rows(payload: Mapping[str, Any], *, slack: bool) -> list[tuple[int, str, Any]]:
    """Return depth, path and value of every value in the payload, in its order."""
    rows: list[tuple[int, str, Any]] = []
    left: list[tuple[int, str, Any]] = [(0, "", payload)]
    while left:
        depth, path, value = left.pop()
        inside: list[tuple[str, Any]] = []
        if isinstance(value, Mapping):
            begin = f"{path} / " if path else ""
            named = cast("Mapping[str, Any]", value)
            inside = [(f"{begin}{_name(name, slack=slack)}", part) for name, part in named.items()]
        elif isinstance(value, list | tuple):
            inside = [(f"{path} [{number}]", part) for number, part in enumerate(cast("list[Any]", value), 1)]
        elif isinstance(value, str):
            value = _text(value, slack=slack)
        if inside:
            left += ((depth + 1, *each) for each in reversed(inside))
        elif path:
            empty = "{}" if isinstance(value, Mapping) else "[]" if isinstance(value, list | tuple) else None
            rows.append((depth, path, cast("Any", value) if empty is None else empty))
    return rows


def _bounded(rows: list[tuple[int, str, Any]], *, slack: bool) -> dict[str, Any]:
    """Return the rows by path. If there are too many, the deepest ones are shown together in the last row."""
    kept = set(range(len(rows)))
    if len(rows) > MAX_ROWS or slack:
        kept.clear()
        room = MAX_SLACK_CHARS if slack else None
        for index in sorted(range(len(rows)), key=lambda index: rows[index][0]):
            length = len(rows[index][1]) + min(len(str(rows[index][2])), SLACK_VALUE_CHARS) + len("**: \n")
            if len(kept) >= MAX_ROWS or (room is not None and room < length):
                break
            kept.add(index)
            room = None if room is None else room - length
    shown = {path: value for index, (_, path, value) in enumerate(rows) if index in kept}
    rest = {path: value for index, (_, path, value) in enumerate(rows) if index not in kept}
    if rest:
        shown[f"({len(rest)} more value{'s' if len(rest) > 1 else ''})"] = json_line(rest)
    return shown


def _name(name: str, *, slack: bool) -> str:
    plain = not _PATH_CHARS.search(name) and name == one_line(name, len(name) or 1)
    return name if plain and not (slack and _is_markup(name)) else _literal(name, slack=slack)


def _text(text: str, *, slack: bool) -> str:
    plain = not text.startswith('"') and text not in _EMPTY and text == one_line(text, len(text) or 1)
    return text if plain and not (slack and _is_markup(text)) else _literal(text, slack=slack)


def _literal(text: str, *, slack: bool) -> str:
    """Return the text as a JSON string, in which hidden characters and, for Slack, markup are escaped."""
    shown = json_line(text)
    if slack:
        shown = _SLACK_PAIR.sub(_escaped, shown.replace("<", "\\u003c").replace("&", "\\u0026"))
    return shown


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _is_markup(text: str) -> bool:
    """Whether Slack would show something else than this text: a link, a mention, an entity or a format."""
    return "<" in text or "&" in text or _SLACK_PAIR.search(text) is not None


def _in_slack(notify: Any) -> bool:
    targets: list[Any] = [notify] if isinstance(notify, str) else notify or []
    return any(str(target).startswith("slack") for target in targets)
