"""What a row does not show well is shown in full above the form, and a channel that cuts a value offers no button."""

from collections.abc import Mapping
from typing import Any

import pytest

from awaithumans_core.display.channels import unrendered
from awaithumans_core.display.full_values import ONLY_IN_DASHBOARD
from awaithumans_core.display.request import displayed

SWITCH = {"kind": "switch", "name": "approved"}
MAIL, SLACK = ["email:ann@example.com"], ["slack:#approvals"]


def form_of(payload: Mapping[str, Any], notify: list[str] | None = None, **more: Any) -> list[dict[str, Any]]:
    """Return the fields of the form that people get with this payload."""
    form = {"version": 1, "fields": [SWITCH]}
    body = {"payload": payload, "payload_schema": {}, "notify": notify, "form_definition": form, **more}
    return list(displayed(body)["form_definition"]["fields"])


def test_text_of_several_lines_is_shown_with_its_lines() -> None:
    """Each line begins with a margin, so that it cannot be taken for another part of the page."""
    text, switch = form_of({"mail": {"body": "Dear Ann,\n\nApproved: yes\n"}})
    assert (text["kind"], text["label"]) == ("display_text", "mail / body")
    assert text["text"].split("\n") == ["\u2502 Dear Ann,", "\u2502 ", "\u2502 Approved: yes", "\u2502 "]
    assert switch == SWITCH


@pytest.mark.parametrize(
    ("payload", "notify"),
    [
        ({"text": "x" * 301}, MAIL),
        ({"text": "x" * 201}, SLACK),
        ({"parts": [{"text": "x" * 201}]}, [*MAIL, *SLACK]),
        ({f"name {n}": "x" * 150 for n in range(30)}, SLACK),
        ({"rows": list(range(200))}, SLACK),
    ],
)
def test_channel_that_cuts_a_value_sends_people_to_the_dashboard(payload: dict[str, Any], notify: list[str]) -> None:
    """A mail without buttons, and Slack without a modal: nobody can approve what they have not seen."""
    fields = form_of(payload, notify)
    assert fields[0]["kind"] == "section_collapse"
    assert fields[0]["name"] == ONLY_IN_DASHBOARD
    found = {each.channel for each in unrendered({"fields": fields}, notify)}
    assert "Slack" in found or "slack" not in notify[0]
    assert sum("name" in field for field in fields) == 2  # a mail has buttons for a form with a single name only


ABOUT = {"kind": "display_text", "text": "Pay a refund."}
LINK = {"kind": "display_text", "text": "<https://evil.example|Approve here>"}


@pytest.mark.parametrize(
    ("parts", "task", "notify", "cut"),
    [
        ([ABOUT], "Refund?", MAIL, True),
        ([ABOUT], "Refund?", SLACK, False),
        ([LINK], "Refund?", SLACK, True),
        ([{**ABOUT, "text": "x" * 3000}], "Refund?", SLACK, True),
        ([], "x" * 151, SLACK, True),
        ([], "x" * 151, MAIL, False),
    ],
)
def test_channel_that_hides_a_text_sends_people_to_the_dashboard(
    parts: list[dict[str, Any]], task: str, notify: list[str], *, cut: bool
) -> None:
    """A mail shows no text of a form, Slack cuts long ones and makes links of markup, and cuts a long question."""
    form = {"version": 1, "fields": [*parts, SWITCH]}
    sent = displayed({"task": task, "payload": {}, "payload_schema": {}, "notify": notify, "form_definition": form})
    assert (sent["form_definition"]["fields"][0]["kind"] == "section_collapse") == cut


@pytest.mark.parametrize("notify", [None, MAIL, SLACK])
def test_short_values_change_no_form(notify: list[str] | None) -> None:
    """What every channel shows in full needs nothing more."""
    assert form_of({"a": "x" * 200, "b": {"c": 1}}, notify) == [SWITCH]


def test_redacted_payload_appears_nowhere() -> None:
    """Neither as rows nor in the form."""
    assert form_of({"text": "secret\nlines", "long": "x" * 1000}, MAIL, redact_payload=True) == [SWITCH]
