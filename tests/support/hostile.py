"""Text as an attacker writes it, and the characters that no output may contain."""

import unicodedata

FORGED = "2026-01-01 12:00:00,000 INFO    awaithumans.relay  delivered task t1 to temporal"
"""A line that imitates one of the relay's log."""

ATTACKS = {
    "clear the screen": "\x1b[2J\x1b[H",
    "terminal title": "\x1b]0;owned\x07",
    "terminal link": "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "C1 control sequence": "\x9b2J\x9d0;owned\x9c",
    "overwritten line": "\rapproved by anna\x08\x08\x7f",
    "forged line": f"\n{FORGED}\n",
    "forged line, Windows": f"\r\n{FORGED}\r\n",
    "line separators": f"\u2028{FORGED}\u2029{FORGED}\x85{FORGED}\x0b\x0c",
    "bidirectional override": "\u202e052$\u202c \u202d\u202a\u202b",
    "bidirectional isolates": "\u2066a\u2067b\u2068c\u2069",
    "bidirectional marks": "a\u200eb\u200fc\u061cd",
    "zero width": "ap\u200bpr\u200co\u200dve\u2060d\ufeff",
    "soft hyphen and fillers": "pay\u00adpal\u3164\u115f\u1160\uffa0\u034f",
    "hidden tags": "ok\U000e0001\U000e0069\U000e0067\U000e006e",
    "hidden variation selectors": "ok\ufe00\ufe0f\U000e0100\U000e01ef",
    "annotations": "a\ufff9b\ufffac\ufffb",
    "lone surrogate": "a\ud800b",
    "null": "a\x00b",
}
ALL = "".join(ATTACKS.values())


def hidden(text: str, *, allowed: str = "") -> set[str]:
    """Return the characters of a text that no output may contain, as escapes; ordinary texts of the tests have none."""
    invisible = "\u034f\u115f\u1160\u3164\uffa0\ufe00\ufe0f\U000e0100\U000e01ef"
    return {
        ascii(each)
        for each in set(text) - set(allowed)
        if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or each in invisible
    }
