"""Values that a row does not show well, in full above the form: texts of several lines, and what a channel cuts off.

A person's decision is worth only what the person saw. Mails cut a value at 300 characters and Slack at 200, and both
may offer buttons beside it. So a question with a longer value gets a part that only the dashboard can show. The server
then sends a link to the dashboard, without buttons.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from awaithumans_core.display.rows import is_markup
from awaithumans_core.display.text_block import text_block

MAX_CHARS: Mapping[str, int] = {"email": 300, "slack": 200}
"""Maximum length of a value that a channel shows in full, as of awaithumans 0.1.11."""

MAX_SLACK_CHARS = 2_900
"""Maximum length of all rows in Slack, which refuses a section of more than 3,000 characters."""

ONLY_IN_DASHBOARD = "only_in_dashboard"
"""Name of a part of the form that is no input, and that mails and Slack cannot show."""

MAX_SLACK_TASK_CHARS = 150
"""Maximum length of a question that Slack shows in full."""

_TITLE = "Open in the dashboard: mails and Slack do not show this question in full"


def full_values(body: Mapping[str, Any], shown: Mapping[str, Any], channels: Collection[str]) -> list[dict[str, Any]]:
    """Return the fields to show above the form; none if every channel shows the question well.

    Args:
        body: The body of `POST /api/tasks`.
        shown: The rows of its payload.
        channels: The channels on which people are notified: `email`, `slack`.
    """
    texts = [text_block(path, text) for path, text in _several_lines(shown)]
    if any(_is_cut(body, shown, channel) for channel in channels):
        part = {"kind": "section_collapse", "name": ONLY_IN_DASHBOARD, "title": _TITLE, "required": False}
        return [{**part, "fields": texts}]
    return [] if "slack" in channels else texts


def _is_cut(body: Mapping[str, Any], shown: Mapping[str, Any], channel: str) -> bool:
    """Whether a channel shows less than the question, its rows and the texts in its form."""
    if any(len(str(value)) > MAX_CHARS.get(channel, sys.maxsize) for value in shown.values()):
        return True
    texts = [str(field.get("text")) for field in _fields(body) if field.get("kind") == "display_text"]
    if channel == "email":
        return bool(texts)  # a mail shows no text of a form
    rows = sum(len(path) + len(str(value)) + len("**: \n") for path, value in shown.items())
    return channel == "slack" and (
        rows > MAX_SLACK_CHARS
        or len(str(body.get("task", ""))) > MAX_SLACK_TASK_CHARS
        or any(len(text) > MAX_SLACK_CHARS or is_markup(text) for text in texts)
    )


def _fields(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    form = body.get("form_definition")
    return list(cast("Mapping[str, Any]", form).get("fields", ())) if isinstance(form, Mapping) else []


def _several_lines(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, value in shown.items():
        if isinstance(value, str) and value.startswith('"') and "\n" in (text := str(json.loads(value))).strip():
            yield path, text
