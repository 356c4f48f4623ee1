"""Text from models, people and servers, made safe to show: on a terminal, in a log, as Markdown, on a page.

Law: no such text leaves through one of our outputs as it came. It could erase or forge a line (ESC, newlines), reverse
what is read (bidirectional controls) or hide a part of it (zero-width characters). Such characters are replaced by
visible escapes as in a Python string: `\\x1b`, `\\n`, `\\u202e`.

What is replaced: controls (Cc), format characters (Cf: bidirectional controls, zero-width characters, soft hyphens,
tags), line and paragraph separators, lone surrogates, and the invisible characters of other categories (variation
selectors, fillers). What ordinary text needs is kept, and only where it needs it: joiners in emoji, joiners between
letters of Arabic and Indic scripts, and behind an Indic virama at the end of a word, word breaks between Thai, Lao,
Burmese or Khmer letters, and one variation selector behind an emoji, an ideograph or a Mongolian letter. The tags of
regional flags (Scotland, Wales) are replaced, because tags also carry text that no person sees.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

LINE_CHARS = 4000
"""Length of a line unless the caller gives another limit."""

BLOCK_CHARS = 20_000
"""Length of a text of several lines, for instance a traceback."""

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_ALSO_HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Invisible, and of another category (Unicode's Default_Ignorable_Code_Point)."""

_SYMBOL = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2900-\u297f"
    "\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_EMOJI = f"{_SYMBOL}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?"
_JOINED = (
    "[\u0620-\u06dc\u06de-\u070d\u0710-\u088f\u0892-\u08e1\u08e3-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18aa"
    "\ufb50-\ufdff\ufe70-\ufefc]"
)
"""Scripts whose letters change their form beside a joiner."""
_VIRAMA = "[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca]"
"""Marks of Indic scripts that a joiner follows also at the end of a word: it decides how the last letter looks."""
_UNSPACED = "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17b3\u17b6-\u17ff]"
"""Scripts without spaces between words."""
_IDEOGRAPH = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
_ORDINARY = "|".join(
    (
        f"{_EMOJI}(?:\u200d{_EMOJI})*",
        "[0-9#*]\ufe0f\u20e3",
        f"(?<={_JOINED})[\u200c\u200d](?={_JOINED})",
        f"(?<={_VIRAMA})[\u200c\u200d]",
        f"(?<={_UNSPACED})\u200b(?={_UNSPACED})",
        f"{_IDEOGRAPH}[\ufe00-\ufe02\U000e0100-\U000e01ef]",
        "[\u1820-\u18aa][\u180b-\u180d\u180f]",
    )
)
_TO_CHECK = re.compile(f"(?P<ordinary>{_ORDINARY})|[^ -~]")

_WORD = r"a-zA-Z0-9\x80-\U0010ffff"
_PLAIN_MARKDOWN = re.compile(
    rf"(?!\d+[.)])[{_WORD}](?:[{_WORD} ,;?!$%'\"()/#+=-]|[.:](?=[ \d]|$))*"
    r"|(?!www\.)[a-zA-Z0-9.+-]+@[a-zA-Z0-9.-]+"
)
"""Text that no dialect of Markdown changes: no markup, and nothing that is turned into a link.

Or an e-mail address, which may become a link, but only to the address that it shows.
"""


def one_line(text: object, limit: int = LINE_CHARS) -> str:
    """Text for one line: hidden characters and line breaks as visible escapes, at most `limit` characters.

    Args:
        text: Anything; `str` of it is shown.
        limit: Characters, 1 or more. Longer text ends with an ellipsis.

    Example:
        >>> one_line("paid\\n12:00 INFO delivered \\u202e")
        'paid\\\\n12:00 INFO delivered \\\\u202e'
    """
    given = str(text)
    if len(given) <= limit and given.isascii() and given.isprintable():
        return given
    return _shortened(_checked(given[: limit + 1], _visible), limit)


def block(text: object, limit: int = BLOCK_CHARS) -> str:
    """Text of several lines, for instance a traceback: as `one_line`, but its line breaks stay and tabs become spaces.

    A reader must be able to see where it ends: indent it, or show it beside a heading.
    """
    given = str(text)[: limit + 1].replace("\r\n", "\n").replace("\t", "    ")
    return _shortened("\n".join(_checked(line, _visible) for line in given.split("\n")), limit)


def markdown(text: object, limit: int = LINE_CHARS) -> str:
    """Text for one line of Markdown in which nothing is markup, a link or HTML.

    Plain words and an e-mail address stay as they are. Anything else becomes a code span, which no dialect of Markdown
    interprets; a backtick in it becomes an apostrophe. A code span adds two characters to `limit`.
    """
    shown = one_line(text, limit).strip()
    return shown if _PLAIN_MARKDOWN.fullmatch(shown) else "`{}`".format(shown.replace("`", "'"))


def json_line(value: Any) -> str:
    """A JSON text of one line, readable where it is harmless; a JSON parser gets the value as it was."""
    return _checked(json.dumps(value, default=str, ensure_ascii=False), lambda hidden: json.dumps(hidden)[1:-1])


def _checked(text: str, escape: Callable[[str], str]) -> str:
    def checked(found: re.Match[str]) -> str:
        shown = found[0]
        hidden = not found["ordinary"] and (unicodedata.category(shown) in _HIDDEN or _ALSO_HIDDEN.match(shown))
        return escape(shown) if hidden else shown

    return _TO_CHECK.sub(checked, text)


def _visible(hidden: str) -> str:
    return hidden.encode("unicode_escape").decode()


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return text[: limit - 1].rstrip("\u200b\u200c\u200d") + "…"  # a joiner needs a letter after it
