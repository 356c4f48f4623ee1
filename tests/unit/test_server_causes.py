"""Each reply and error of the awaithumans server has one cause, and one way to fix it."""

import pytest

from awaithumans_core.errors import (
    AuthenticationError,
    AwaitHumansError,
    PermissionDeniedError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    UnexpectedReplyError,
)
from awaithumans_core.flow import Lost, Proxy, Reply
from awaithumans_relay.availability.server_causes import (
    ServerCause,
    cause_of_error,
    cause_of_reply,
    concerns_server,
    describe,
    describe_reply,
)

URL = "http://humans.example"
PROXY = Proxy("HTTP_PROXY", "http://p:1", "humans.example")


@pytest.mark.parametrize(
    ("error", "cause", "whole_server"),
    [
        (ServerUnreachableError("x"), ServerCause.UNREACHABLE, True),
        (SettingsError("x"), ServerCause.SETTINGS, True),
        (AuthenticationError("x"), ServerCause.TOKEN_REFUSED, True),
        (AuthenticationError("x", from_api=False), ServerCause.PROXY, True),
        (PermissionDeniedError("x"), ServerCause.TOKEN_REFUSED, False),
        (UnexpectedReplyError("x"), ServerCause.NOT_THE_SERVER, False),
        (RequestRefusedError("x", from_api=False), ServerCause.NOT_THE_SERVER, False),
        (RequestRefusedError("x"), ServerCause.REQUEST_REFUSED, False),
    ],
    ids=lambda value: value.code if isinstance(value, AwaitHumansError) else str(value),
)
def test_cause_of_an_error(error: AwaitHumansError, cause: ServerCause, whole_server: bool) -> None:  # noqa: FBT001
    """Only an error that concerns the whole server stops the checks of all tasks."""
    assert (cause_of_error(error), concerns_server(error)) == (cause, whole_server)
    assert cause in describe(error)


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Lost("ConnectError"), ServerCause.UNREACHABLE),
        (Reply(503, {}, b"{}"), ServerCause.UNREACHABLE),
        (Reply(429, {}, b"{}"), ServerCause.UNREACHABLE),
        (Reply(401, {}, b'{"detail": "no"}'), ServerCause.TOKEN_REFUSED),
        (Reply(403, {}, b'{"detail": "no"}'), ServerCause.TOKEN_REFUSED),
        (Reply(403, {}, b"<html>"), ServerCause.NOT_THE_SERVER),
        (Reply(403, {}, b"<html>", proxy=PROXY), ServerCause.PROXY),
        (Reply(200, {}, b"<html>", proxy=PROXY), ServerCause.PROXY),
        (Reply(200, {}, b"<html>"), ServerCause.NOT_THE_SERVER),
        (Reply(200, {}, b"{}"), ServerCause.NOT_THE_SERVER),
        (Reply(404, {}, b"[]"), ServerCause.NOT_THE_SERVER),
        (Reply(200, {}, b"[]"), None),
    ],
)
def test_cause_of_a_reply(reply: Reply | Lost, cause: ServerCause | None) -> None:
    """The list of tasks is no problem; every other reply has a description that names the server's address."""
    assert cause_of_reply(reply) == cause
    text = describe_reply(reply, URL)
    assert (text is None) == (cause is None)
    assert text is None or URL in text
