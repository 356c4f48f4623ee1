"""The table of types in the documentation, as a run in the browser has written it."""

import html
from pathlib import Path

from tests.browser.answers import ENTERED, Cells
from tests.browser.types import KINDS, NO_FIELDS, REFUSED_WHEN_ASKED

TABLE = Path("docs/form-types.md")

HEAD = """# Types of an answer's fields

Written by `make test-browser`: a person fills in each field in the dashboard of awaithumans 0.1.11, in Chromium. The
result is the same for a pydantic model, a dataclass and a TypedDict.

"""


def written(cells: Cells) -> str:
    """Return the table as Markdown.

    Raises:
        KeyError: a type has no cells, so the run has not tried it.
    """
    columns = ("input", *ENTERED)
    lines = ["| type | input | a valid entry gives | nothing entered | a wrong entry |", "|" + "---|" * 5]
    for kind in (*KINDS, NO_FIELDS, *REFUSED_WHEN_ASKED):
        found = [cells[kind].get(column, "-") for column in columns]
        lines.append("| " + " | ".join(_cell(text) for text in (f"`{kind}`", *map(_code, found))) + " |")
    return HEAD + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a cell in which no bar ends it: in code, not every renderer takes a backslash before a bar away."""
    if "|" not in text:
        return text
    code = text.removeprefix("`").removesuffix("`")
    bars = html.escape(code, quote=False).replace("|", "&#124;")
    return f"<code>{bars}</code>" if code != text else bars


def _code(text: str) -> str:
    """Return a value as code, and words as words."""
    return (
        text if text in ("-", "refused") or text.startswith("refused") or text.split(" ")[0] in _INPUTS else f"`{text}`"
    )


_INPUTS = ("switch", "short_text", "long_text", "single_select", "multi_select", "date", "datetime", "time")
