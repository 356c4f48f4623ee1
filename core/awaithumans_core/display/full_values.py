"""Values that a row does not show well, in full above the form: texts of several lines, and what a channel cuts off.

A person's decision is worth only what the person saw. Mails cut a value at 300 characters and Slack at 200, and both
may offer buttons beside it. So a question with a longer value gets a part that only the dashboard can show. The server
then sends a link to the dashboard, without buttons.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from awaithumans_core.display.text_block import text_block

MAX_CHARS: Mapping[str, int] = {"email": 300, "slack": 200}
"""Maximum length of a value that a channel shows in full, as of awaithumans 0.1.11."""

MAX_SLACK_CHARS = 2_900
"""Maximum length of all rows in Slack, which refuses a section of more than 3,000 characters."""

ONLY_IN_DASHBOARD = "only_in_dashboard"
"""Name of a part of the form that is no input, and that mails and Slack cannot show."""

_TITLE = "Open in the dashboard: mails and Slack do not show this question in full"


def full_values(shown: Mapping[str, Any], channels: Collection[str]) -> list[dict[str, Any]]:
    """Return the fields to show above the form; none if the rows show everything well.

    Args:
        shown: The rows of a payload.
        channels: The channels on which people are notified: `email`, `slack`.
    """
    cut = any(_is_cut(shown, channel) for channel in channels)
    texts = [text_block(path, text) for path, text in _several_lines(shown)]
    if cut:
        title = "Open in the dashboard: mails and Slack do not show this question in full"
        return [
            {"kind": "section_collapse", "name": ONLY_IN_DASHBOARD, "title": title, "required": False, "fields": texts}
        ]
    return [] if "slack" in channels else texts


def _is_cut(shown: Mapping[str, Any], channel: str) -> bool:
    """Whether a channel shows less than these rows."""
    limit = MAX_CHARS.get(channel)
    lengths = [(len(path), len(str(value))) for path, value in shown.items()]
    if channel == "slack" and sum(path + value + len("**: \n") for path, value in lengths) > MAX_SLACK_CHARS:
        return True
    return limit is not None and any(value > limit for _, value in lengths)


def _several_lines(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, value in shown.items():
        if isinstance(value, str) and value.startswith('"') and "\n" in (text := str(json.loads(value))).strip():
            yield path, text
