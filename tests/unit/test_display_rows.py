"""The payload as rows that people read: readable, not to be imitated, and without a loss."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaithumans_core.binding import PAYLOAD_DIGEST, differences, parts, parts_asked
from awaithumans_core.display.request import displayed
from awaithumans_core.display.rows import MAX_ROWS, original_payload

SLACK = ["slack:#approvals"]


def body(payload: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the part of a task body that is displayed."""
    return {"task": "Refund?", "payload": payload, "payload_schema": {"type": "object"}, **more}


def rows(payload: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the rows that people see of this payload."""
    return dict(displayed(body(payload, **more))["payload"])


LAYOUTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"customer": {"address": {"city": "Paris"}}}, {"customer / address / city": "Paris"}),
    ({"tags": ["a", "b"]}, {"tags [1]": "a", "tags [2]": "b"}),
    ({"items": [{"sku": "A-1", "n": 2}]}, {"items [1] / sku": "A-1", "items [1] / n": 2}),
    ({"grid": [[1, 2], [3]]}, {"grid [1] [1]": 1, "grid [1] [2]": 2, "grid [2] [1]": 3}),
    ({"none": {}, "few": []}, {"none": "{}", "few": "[]"}),
    ({"note": "Dear Ann\nyes"}, {"note": '"Dear Ann\\nyes"'}),
    ({"note": "safe \u202eoidua"}, {"note": '"safe \\u202eoidua"'}),
    ({"a / b": 1}, {'"a / b"': 1}),
    ({"tags [1]": "a"}, {'"tags [1]"': "a"}),
    ({"line\nbreak": 1}, {'"line\\nbreak"': 1}),
    (
        {"account": 9007199254740993, "text": "9007199254740993"},
        {"account": "9007199254740993", "text": '"9007199254740993"'},
    ),
    ({"none": None, "word": "null"}, {"none": None, "word": '"null"'}),
    ({"note": "a" + "\u2003" * 2 + "total: 5"}, {"note": '"a\\u2003\\u2003total: 5"'}),
    ({"x \u2215 y": 1}, {'"x \\u2215 y"': 1}),
]


@pytest.mark.parametrize(("payload", "shown"), LAYOUTS, ids=[ascii(list(given)) for given, _ in LAYOUTS])
def test_each_value_is_one_row(payload: dict[str, Any], shown: dict[str, Any]) -> None:
    """A nested value, and a text that is more than a line, become rows of one line."""
    assert rows(payload) == shown


def test_plain_payload_is_sent_unchanged() -> None:
    """Names and values that every channel shows as they are need no rows, and the record no digest."""
    asked = body({"amount": 250, "to": "Ann", "ok": None, "path": "C:\\new", "a.b": 1.5})
    assert displayed(asked) == asked


def test_redacted_payload_is_sent_unchanged() -> None:
    """No channel shows it, so that nothing of it is put anywhere else."""
    asked = body({"secret": {"number": 1}}, redact_payload=True)
    assert displayed(asked) == asked


DISTINCT: list[dict[str, Any]] = [
    {"a.b": 1},
    {"a": {"b": 1}},
    {"a / b": 1},
    {"a": [1]},
    {"a [1]": 1},
    {"a": {"1": 1}},
    {"a": {"[1]": 1}},
    {'"a / b"': 1},
    {"a": {}},
    {"a": []},
    {"a": "{}"},
    {"a": '"{}"'},
    {"a": "x\ny"},
    {"a": "x\\ny"},
    {"a": '"x\\ny"'},
    {"(1 more; all values as JSON)": "{}"},
]


def test_different_payloads_have_different_rows() -> None:
    """No payload can be taken for another one, whatever its names contain."""
    shown = [json.dumps(rows(payload)) for payload in DISTINCT]
    assert len(set(shown)) == len(DISTINCT)


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a\x1b[2Kb", "a\u202eb", "a\u200bb", "a\x00b"])
def test_no_row_contains_what_could_imitate_another(text: str) -> None:
    """Line breaks, control characters, bidirectional marks and invisible characters are escaped in names and values."""
    shown = rows({text: {"inside": text}})
    assert all(
        ord(char) >= ord(" ") and char not in "\u2028\u202e\u200b" for char in json.dumps(shown, ensure_ascii=False)
    )
    assert all(char not in path + str(value) for path, value in shown.items() for char in "\n\r\x1b\x00\u2028\u202e")


@pytest.mark.parametrize(
    "text", ["<!channel>", "<https://evil.example|Approve>", "&lt;b&gt;", "*yes*", "~500~ 5", "`x`"]
)
def test_markup_of_slack_is_inert(text: str) -> None:
    """Slack shows the text with escapes, and no link, mention or format. The other channels know no such markup."""
    shown = rows({text: text}, notify=SLACK)
    (path, value) = next(iter(shown.items()))
    assert path.startswith('"')
    assert "<" not in path + value
    assert "&" not in path + value
    assert json.loads(value) == text
    assert rows({"a": text}) == {"a": text}


@pytest.mark.parametrize("text", ["user_id", "2 * 3 * 4", "snake_case_name", "5 ~ 6"])
def test_ordinary_text_is_not_escaped_for_slack(text: str) -> None:
    """A character that Slack does not take for a format is shown as it is."""
    assert rows({"a": text}, notify=SLACK) == {"a": text}


def test_many_values_are_bounded_and_the_note_says_how_many() -> None:
    """The rows of the upper levels are shown. The others are counted, and the last row holds the payload as JSON."""
    shown = rows({"items": [{"n": {"sku": str(n)}} for n in range(500)], "total": 7})
    assert len(shown) == MAX_ROWS + 1
    assert shown["total"] == 7
    whole = json.loads(shown["(401 more; all values as JSON)"])
    assert whole["items"][499] == {"n": {"sku": "499"}}


def test_many_long_names_do_not_multiply_the_size() -> None:
    """Each name of a nested payload is repeated in the rows that are shown, and not for each value that is not."""
    payload = {"a" * 100: {"b" * 100: {"c" * 100: list(range(20_000))}}}
    assert len(json.dumps(rows(payload))) < len(json.dumps(payload)) + 100 * 400


NAMES = st.text(max_size=8) | st.sampled_from(
    ["a", "a / b", "a [1]", '"a"', "(1 more; all values as JSON)", "", " a ", "[1]"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53 + 1, -(10**30)])
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(["{}", "[]", '"', '"x"', "9007199254740993", "null"]),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(NAMES, part, max_size=4),
    max_leaves=150,
)


@given(payload=st.dictionaries(NAMES, VALUES, max_size=6), notify=st.sampled_from([None, SLACK]))
def test_original_payload_is_read_back_exactly(payload: dict[str, Any], notify: list[str] | None) -> None:
    """Whatever the rows look like, a machine gets from them the payload that the caller gave."""
    sent = json.loads(json.dumps(displayed(body(payload, notify=notify))))
    assert original_payload(sent) == payload
    assert all(not isinstance(value, dict | list) for value in sent["payload"].values())


@given(payload=st.dictionaries(NAMES, VALUES, max_size=4), other=st.dictionaries(NAMES, VALUES, max_size=4))
def test_identity_is_that_of_the_callers_payload(payload: dict[str, Any], other: dict[str, Any]) -> None:
    """A record with rows is the question that was asked, another layout of it too, and another payload is not."""
    record = displayed(body(payload))
    assert differences(parts_asked(body(payload)), parts(record)) == ()
    if PAYLOAD_DIGEST in record["payload_schema"]:
        relaid = {**record, "payload": {"another layout": "of the same"}}
        assert differences(parts_asked(body(payload)), parts(relaid)) == ()
    if json.dumps(other, sort_keys=True) != json.dumps(payload, sort_keys=True):
        assert differences(parts_asked(body(other)), parts(record)) == ("payload",)


def test_record_of_an_earlier_release_is_compared_by_its_payload() -> None:
    """A record without a digest shows the payload as the caller gave it."""
    asked = body({"customer": {"name": "Ann"}})
    assert differences(parts_asked(asked), parts(asked)) == ()
    assert differences(parts_asked(asked), parts({**asked, "payload": {"customer": {"name": "Bob"}}})) == ("payload",)


def test_rows_that_this_release_cannot_read_are_an_error() -> None:
    """The rows of another layout are not taken for a payload."""
    with pytest.raises(ValueError, match="is no row of a payload"):
        original_payload({"payload": {"a // [": 1}, "payload_schema": {PAYLOAD_DIGEST: "0"}})
