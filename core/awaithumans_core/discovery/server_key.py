"""The root key of a local `awaithumans dev`, which keeps it beside its database.

The relay needs the key to verify callbacks, and only the relay. So no other process reads this file.
"""

import logging
from contextlib import suppress

from pydantic import SecretStr

from awaithumans_core.discovery.file import nearest_file, read_private
from awaithumans_core.discovery.instance import UnusableFileError
from awaithumans_core.http.addresses import is_on_this_machine
from awaithumans_core.safe_logging import log_once, safe_logger
from awaithumans_core.time_limit import within_limit

logger = safe_logger("awaithumans.settings")

_KEY, _TOKEN = "payload.key", "admin.token"


def key_beside_server(url: str, token: str) -> SecretStr | None:
    """Return the root key of the awaithumans server at this address, if it keeps its files in this project.

    Server and key belong together if the token beside the key is the one that the server accepts. The files are
    searched as the discovery file is, and only for a server on this machine.

    Args:
        url: Address of the server.
        token: The API token for it.
    """
    if not token or not is_on_this_machine(url):
        return None
    return within_limit(lambda: _key_beside(token), None)


def _key_beside(token: str) -> SecretStr | None:
    with suppress(UnusableFileError, UnicodeDecodeError):
        path = nearest_file(name=_KEY)
        if path is not None and read_private(path.with_name(_TOKEN)).decode().strip() == token:
            key = read_private(path).decode().strip()
            log_once(logger, logging.INFO, f"using {path}, the key of the local awaithumans server")
            return SecretStr(key) if key else None
    return None
