"""The awaithumans server that `awaithumans dev` runs on this machine, and the file in which it announces itself.

Whether the server still runs, only its health endpoint knows. No signal is sent to its process: on Windows signal 0 is
Ctrl-C, and a process id can belong to another process by now.
"""

from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from awaithumans_core.http.addresses import is_on_this_machine, is_same_place, without_user
from awaithumans_core.time_limit import within_limit

DISCOVERY_FILE = ".awaithumans-dev.json"
"""Written to the home directory by `awaithumans dev`: url, pid, admin_token."""

HEALTH_SECONDS = 2
"""Maximum seconds between two parts of the reply of its health endpoint."""

_HEALTH_BYTES = 64 * 1024
_CONNECTIONS = {"http": HTTPConnection, "https": HTTPSConnection}


class LocalServer(BaseModel):
    """The local server, as its file announces it."""

    url: str
    admin_token: str | None = None

    def is_running(self) -> bool:
        """Whether an awaithumans server answers at this address.

        It must not be called in an event loop, because it blocks.
        """
        try:
            address = urlsplit(self.url)
            connect = _CONNECTIONS.get(address.scheme)
            if connect is None or not address.hostname:
                return False
            with closing(connect(address.hostname, address.port, timeout=HEALTH_SECONDS)) as connection:
                connection.request("GET", f"{address.path.rstrip('/')}/api/health")
                reply = connection.getresponse()
                health = _Health.model_validate_json(reply.read(_HEALTH_BYTES))
                return reply.status == HTTPStatus.OK and health.status == "ok"
        except (HTTPException, OSError, ValueError):
            return False


class _Health(BaseModel):
    """The reply of the health endpoint."""

    status: str


def announced_server() -> LocalServer | None:
    """Return the server that the file announces, which may have ended since. None: the file is missing or unreadable.

    A process without a home directory has no such file.
    """
    with suppress(OSError, RuntimeError, ValueError):
        return LocalServer.model_validate_json((Path.home() / DISCOVERY_FILE).read_bytes(), strict=True)
    return None


def announced_elsewhere(url: str) -> str:
    """Return a note on the local server that announces itself at another address than this one, for the text of errors.

    `awaithumans dev` chooses another port if its own is taken. Empty: there is none, or the URL is not one of a server
    on this machine. Whether the announced server still runs is not checked. Safe to call in an event loop.

    Args:
        url: Address of the awaithumans server, or a URL of its API.
    """
    base, _, called = url.partition("/api/")
    if not is_on_this_machine(base) or (urlsplit(base).path.strip("/") and not called):
        return ""
    server = within_limit(announced_server, None)
    if server is None or is_same_place(base, server.url):
        return ""
    return f"a local `awaithumans dev` has announced itself at {without_user(server.url)}, and not at {base}"
