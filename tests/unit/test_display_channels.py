"""A form that a channel cannot show is reported when the question is asked."""

import logging
from typing import Any

import pytest

from awaithumans_core.display.channels import Unrendered, unrendered, warn_if_unrendered

SWITCH = {"kind": "switch", "name": "approved"}
TEXT = {"kind": "short_text", "name": "reason"}
TABLE = {"kind": "table", "name": "rows"}


def select(options: int) -> dict[str, Any]:
    """Return a select with that many options."""
    return {"kind": "single_select", "name": "pick", "options": [{"value": str(n)} for n in range(options)]}


@pytest.mark.parametrize(
    ("fields", "notify", "found"),
    [
        ([SWITCH], ["email:a@example.com"], []),
        ([select(4)], ["email:a@example.com"], []),
        ([select(5)], ["email:a@example.com"], [Unrendered("mail", ("pick",))]),
        ([TEXT], ["email+acme:a@example.com"], [Unrendered("mail", ("reason",))]),
        ([SWITCH, TEXT], ["email:a@example.com"], [Unrendered("mail", ("approved", "reason"))]),
        ([{"kind": "section", "title": "About"}, SWITCH], ["email:a@example.com"], []),
        (
            [{"kind": "section_collapse", "name": "more"}, SWITCH],
            ["email:a@x.org"],
            [Unrendered("mail", ("more", "approved"))],
        ),
        ([SWITCH, TEXT], ["slack:#refunds"], []),
        ([SWITCH, TABLE], ["slack+T1:#refunds"], [Unrendered("Slack", ("rows",))]),
        ([TABLE], [], []),
    ],
)
def test_channel_that_cannot_show_the_form_is_named(
    fields: list[dict[str, Any]], notify: list[str], found: list[Unrendered]
) -> None:
    """The fields are named, too. A channel on which no person is notified does not count."""
    assert list(unrendered({"fields": fields}, notify)) == found


def test_warning_names_field_and_channel_once(caplog: pytest.LogCaptureFixture) -> None:
    """It comes once for a form and a channel, because a workflow may ask thousands of times."""
    body = {"form_definition": {"fields": [SWITCH, {**TEXT, "name": "because"}]}, "notify": ["email:a@example.com"]}
    with caplog.at_level(logging.WARNING, "awaithumans"):
        warn_if_unrendered(body)
        warn_if_unrendered(body)
    (record,) = caplog.records
    assert "in mail" in record.getMessage()
    assert "approved, because" in record.getMessage()
