"""A text of several lines as a part of a form that people read and do not fill in."""

from typing import Any

from awaithumans_core.safe_text import BLOCK_CHARS, block

MARGIN = "\u2502 "
"""Begins every line, so that no line of the text can be taken for something else on the page."""


def text_block(label: str, text: str) -> dict[str, Any]:
    """Return the part of a form that shows a text with its lines. Hidden characters are escaped.

    Args:
        label: The heading above the text.
        text: The text. Text of more than 20,000 characters is shortened, and ends with an ellipsis.
    """
    lines = (f"{MARGIN}{line}" for line in block(text, BLOCK_CHARS).split("\n"))
    return {"kind": "display_text", "label": label, "text": "\n".join(lines), "required": False}
