"""Sanitizing of text from models, people and servers before it is shown."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from awaithumans_core.safe_text import block, json_line, markdown, one_line
from tests.support.hostile import ALL, ATTACKS, hidden

HIDDEN = st.sampled_from(sorted(set(ALL) - set(string.printable)) + list("\n\r\t\x0b\x0c"))
MIXED = st.text(HIDDEN | st.sampled_from(string.ascii_letters + " $é"))
"""Hidden characters between letters where none of them is usual."""

each_attack = pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)


@each_attack
def test_one_line_has_no_hidden_characters(text: str) -> None:
    """Each attack becomes visible in one line, which keeps everything that was visible."""
    shown = one_line(f"before {text} after")
    assert hidden(shown) == set()
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "\\" in shown


@given(MIXED)
def test_every_hidden_character_is_escaped(text: str) -> None:
    """Hidden characters become escapes in any order, in a line and in a block."""
    assert hidden(one_line(text)) == set()
    assert hidden(block(text), allowed="\n") == set()


@given(st.text(), st.integers(1, 50))
def test_one_line_is_bounded_and_idempotent(text: str, limit: int) -> None:
    """The line is limited in length, can be encoded, and is unchanged by a second pass."""
    shown = one_line(text, limit)
    assert len(shown) <= limit
    assert len(f"{shown}.".splitlines()) == 1
    assert one_line(shown, limit) == shown
    assert one_line(one_line(text)) == one_line(text)
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J", r"a\x1b[2J"),
        ("a\nb\r\nc\td", r"a\nb\r\nc\td"),
        ("$\u202e052", r"$\u202e052"),
        ("a\u2028b", r"a\u2028b"),
        ("pay\u200dpal", r"pay\u200dpal"),
        ("x\ufe0f", r"x\ufe0f"),
        ("ര്\u200d\u200d\u200c", "ര്\u200d" + r"\u200d\u200c"),
        ("😀\ufe0f\ufe0f", "😀\ufe0f\\ufe0f"),
        ("😀\u200da", r"😀\u200da"),
        ("a\U000e0041", r"a\U000e0041"),
        (r"C:\new", r"C:\new"),
    ],
    ids=ascii,
)
def test_escapes_have_python_string_form(text: str, shown: str) -> None:
    """The reader can see which character it was."""
    assert one_line(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Approve $250 refund for ACME?",
        "Größe: 3 µm · naïve “quotes” 価格は１００円",
        "👨‍👩‍👧 👩🏽‍⚕️ ❤️‍🔥 🏳️‍🌈 🙂‍↔️ 1️⃣ ⚠️ ☎︎ 🇩🇪",
        "می‌خواهم",
        "क्‍ष, শ্রী‌মান",
        "സോഫ്റ്റ്\u200cവെയര്\u200d വാങ്ങണോ? సాఫ్ట్\u200cవేర్\u200c కొనాలా?",
        "葛\U000e0100城",
        "ᠠ\u180b",
        "ไทย\u200bคำ ខ្ញុំ\u200bស្រឡាញ់",
        "שלום, السلام عليكم",
    ],
    ids=ascii,
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    """Emoji and scripts that need joiners or word breaks are shown as written."""
    assert one_line(text) == text


def test_long_line_is_shortened_at_its_end() -> None:
    """The limit counts shown characters, so escapes do not make a line longer."""
    assert one_line("x" * 11, 10) == "x" * 9 + "…"
    assert one_line("\x1b" * 10, 10) == r"\x1b\x1b\x"[:9] + "…"
    assert one_line("می\u200cکنم", 4) == "می…"
    assert len(block("line\n" * 10_000)) == 20_000


def test_block_keeps_its_lines() -> None:
    """All kinds of line breaks become one, a tab becomes spaces, and the rest is treated as in one line."""
    assert block("a\r\nb\n\tc\rd\x1b") == "a\nb\n    c\\rd\\x1b"


@pytest.mark.parametrize(
    "text",
    [
        "Approve $250 refund?",
        "Ship order 10.5, today (3 pm) - #12: yes/no",
        "Größe 漢字 “ok” 👍",
        "anna@example.com",
    ],
)
def test_plain_text_has_no_markdown_escapes(text: str) -> None:
    """Text that Markdown does not change is shown unchanged."""
    assert markdown(text) == text


MARKUP = [
    "[Approve here](https://evil.example)",
    "https://evil.example",
    "see www.evil.example",
    "<https://evil.example>",
    "<img src=x onerror=alert(1)>",
    "![x](https://evil.example/x.png)",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "***",
    "**bold** _it_ ~~gone~~",
    "`code`",
    "``` [a](b) ``` `` ` [a](b)",
    "a | b",
    "&lt;b&gt;",
    "\\[a](b)",
    "\n\n# heading\n\n[a](https://evil.example)\n\n---\n",
    "[a]: https://evil.example",
    "** [a](b) **",
]


@given(st.sampled_from(MARKUP) | MIXED | st.text() | st.text(string.punctuation + "a1. \n").filter(str.strip))
def test_escaped_markdown_has_no_markup(text: str) -> None:
    """No text becomes a link, heading, image, HTML or list, or ends its line."""
    shown = markdown(text)
    for document in (shown, f"Waiting for {shown}: **{shown}**"):
        parsed = MarkdownIt("commonmark").parse(document)
        assert [token.type for token in parsed] in (["paragraph_open", "inline", "paragraph_close"], [])
        inside = [child for token in parsed for child in token.children or ()]
        assert {child.type for child in inside} <= {"text", "code_inline", "strong_open", "strong_close"}
        words = "".join(child.content for child in inside if child.type == "text")
        assert not any(link in words for link in ("://", "www."))  # GitHub's dialect turns these into links


@given(st.recursive(st.text() | MIXED | st.none(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_json_line_keeps_the_value_in_one_visible_line(value: object) -> None:
    """A program reads the same value, and the line cannot control a terminal."""
    line = json_line({"value": value, "attack": ALL})
    assert json.loads(line) == {"value": value, "attack": ALL}
    assert hidden(json_line({"attack": ALL})) == set()
    assert len(line.splitlines()) == 1
