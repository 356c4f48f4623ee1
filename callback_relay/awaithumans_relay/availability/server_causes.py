"""Maps a reply or an error to the cause for which the awaithumans server cannot be read, and to the way to fix it.

Law: only some causes concern the server as a whole: a lost connection, 5xx, 429 (and 408 and 425, which are treated
alike), 401, and an environment in which no request can be sent. Any other odd reply concerns one task. That task is
read again later, and the others continue.
"""

from enum import StrEnum

from awaithumans_core.errors import (
    AuthenticationError,
    AwaitHumansError,
    PermissionDeniedError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    UnexpectedReplyError,
)
from awaithumans_core.flow import SAME_KEY, Lost, Reply, advice_on, advice_on_other, answered_by_proxy
from awaithumans_core.json_values import read_json
from awaithumans_core.services import SERVER


class ServerCause(StrEnum):
    """The cause for which the awaithumans server, or one of its tasks, cannot be read."""

    UNREACHABLE = "unreachable"
    """There was no reply, or one that asks the client to come back later."""
    SETTINGS = "settings"
    """The environment of this process permits no request."""
    TOKEN_REFUSED = "token refused"  # noqa: S105 - no password
    """The server does not accept this relay's token."""
    PROXY = "proxy"
    """A proxy or gateway replied in place of the server."""
    NOT_THE_SERVER = "not the server"
    """The reply is not from the task API."""
    REQUEST_REFUSED = "request refused"
    """The server refuses this request for another reason."""


CONSEQUENCE = (
    "Waits are kept and callbacks are accepted. Answers that are not called back (by e-mail, in Slack) are not found "
    "until the server can be read again"
)
"""What follows for a relay that cannot read the server."""
_LATER = frozenset({408, 425, 429})


def cause_of_error(error: BaseException) -> ServerCause:
    """Return the cause that an error of the task client shows."""
    match error:
        case SettingsError():
            return ServerCause.SETTINGS
        case UnexpectedReplyError():
            return ServerCause.NOT_THE_SERVER
        case ServerUnreachableError():
            return ServerCause.UNREACHABLE
        case AuthenticationError() | PermissionDeniedError():
            return ServerCause.TOKEN_REFUSED if error.from_api else ServerCause.PROXY
        case RequestRefusedError() if not error.from_api:
            return ServerCause.NOT_THE_SERVER
        case _:
            return ServerCause.REQUEST_REFUSED


def concerns_server(error: AwaitHumansError) -> bool:
    """Whether this error shows that no task can be read. False: it concerns one task."""
    return isinstance(error, AuthenticationError) or cause_of_error(error) in {
        ServerCause.UNREACHABLE,
        ServerCause.SETTINGS,
    }


def describe(error: BaseException) -> str:
    """Describe an error, its cause and the way to fix it, for the log."""
    return f"{cause_of_error(error)} ({str(error).replace(SAME_KEY, '')}). {CONSEQUENCE}"


def cause_of_reply(reply: Reply | Lost) -> ServerCause | None:
    """Return the cause that a reply to `GET /api/tasks` shows. None: it is the list of tasks."""
    if isinstance(reply, Lost):
        return ServerCause.UNREACHABLE
    try:
        content = read_json(reply.body)
    except ValueError:
        is_json = is_list = False
    else:
        is_json, is_list = True, isinstance(content, list)
    if not is_list and answered_by_proxy(reply) is not None:
        return ServerCause.PROXY
    if reply.status in {401, 403} and is_json:
        return ServerCause.TOKEN_REFUSED
    if reply.status in _LATER or reply.status >= 500:
        return ServerCause.UNREACHABLE
    # A page that a web app or a proxy returns for every path is not a list of tasks.
    return None if 200 <= reply.status < 300 and is_list else ServerCause.NOT_THE_SERVER


def describe_reply(reply: Reply | Lost, url: str) -> str | None:
    """Describe the problem that a reply to `GET /api/tasks` of this server shows. None: there is none."""
    cause = cause_of_reply(reply)
    if cause is None:
        return None
    at, advice = SERVER.at(url), advice_on(SERVER, reply)
    if isinstance(reply, Lost):
        problem = f"{SERVER.name} does not answer at {at}: {reply.error}"
    elif cause == ServerCause.PROXY:
        problem = f"{SERVER.name} at {at} is not reached: {reply.proxy} answers {reply.status} in its place"
    elif cause == ServerCause.TOKEN_REFUSED:
        problem = f"{SERVER.name} at {at} refuses AWAITHUMANS_ADMIN_API_TOKEN ({reply.status})"
        advice = "Set AWAITHUMANS_ADMIN_API_TOKEN to the token of this server"
    elif cause == ServerCause.UNREACHABLE:
        problem = f"{SERVER.name} at {at} answers {reply.status}"
    else:
        problem, advice = f"{at} answers {reply.status} to GET /api/tasks", advice_on_other(SERVER, reply)
    return f"{problem}. {advice}" if advice else problem
