"""`notify=` is checked when a question is asked: what reaches no person is refused, with what to write."""

from typing import Any

import pytest
from pydantic import BaseModel

from awaithumans_core import HumanTask, InvalidTaskError


class Decision(BaseModel):
    approved: bool


def ask(notify: Any) -> Any:
    return HumanTask(task="Approve?", response_schema=Decision, notify=notify).body().get("notify")


@pytest.mark.parametrize(
    "route",
    [
        *("slack:@ann", "slack:#refunds", "slack:ann", "slack:U0123456", "slack:C0123456", "slack:ann@example.com"),
        *("slack+T123456:#refunds", "slack:@Ann Lee", "email:ann@example.com", "email+acme-prod:ann+x@example.com"),
    ],
)
def test_route_of_the_server_is_accepted(route: str) -> None:
    """A person or a channel in Slack, and an address, also with a workspace or a sender."""
    assert ask(route) == [route]
    assert ask([route, "slack:#other"]) == [route, "slack:#other"]


def test_bare_address_is_refused_with_what_to_write() -> None:
    """The server would accept it, and notify nobody."""
    with pytest.raises(InvalidTaskError, match=r"'ann@example\.com' reaches no person: write 'email:ann@example\.com'"):
        ask("ann@example.com")


@pytest.mark.parametrize(
    "route",
    [
        "",
        "#refunds",
        "@ann",
        "slack:",
        "slack:#",
        "slack:@",
        "email:",
        "email:ann",
        "sms:+491234",
        "slack+:#a",
        ":x",
        5,
    ],
)
def test_route_that_reaches_nobody_is_refused(route: Any) -> None:
    """Other channels, and targets without a person, have no notifier."""
    with pytest.raises(InvalidTaskError, match="reaches no person"):
        ask(["slack:#refunds", route])
