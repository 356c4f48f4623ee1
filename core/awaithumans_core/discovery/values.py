"""The settings that the development servers on this machine provide, as a set or not at all.

Law: secrets and addresses of one instance are used together. If an argument, a variable or `.env` names another address
or another secret, nothing of the instance is used, since its secrets must not be sent to another server.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from pydantic import SecretStr

from awaithumans_core.discovery.instance import DevInstance
from awaithumans_core.discovery.search import confirmed, trusted_file
from awaithumans_core.http.addresses import is_same_place
from awaithumans_core.http.local_server import announced_server
from awaithumans_core.safe_logging import log_once, safe_logger
from awaithumans_core.time_limit import LIMIT_SECONDS, within_limit

logger = safe_logger("awaithumans.settings")

_OF_SERVER = frozenset({"url", "admin_api_token"})
_OF_INSTANCE = _OF_SERVER | {"relay_url", "relay_secret"}


class _Found(NamedTuple):
    values: dict[str, Any]
    used: str | None = None
    problem: str | None = None


def discovered_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a running instance of the project provides, or else a running `awaithumans dev`.

    Safe to call in an event loop: files and sockets are used in a thread, for which the caller waits for a few
    milliseconds, and at most for `LIMIT_SECONDS`. A tool that refuses this wait as well gets no values.

    Args:
        given: The settings of all other sources. They decide whether an instance may be used.
    """
    if given.keys() >= _OF_INSTANCE:
        return {}
    found = within_limit(lambda: _searched(given), _NOT_IN_TIME)
    if found.problem is not None:
        # A process that has its own server and token lacks nothing because of the file.
        log_once(logger, logging.INFO if given.keys() >= _OF_SERVER else logging.WARNING, found.problem)
    if found.used is not None:
        log_once(logger, logging.INFO, found.used)
    return found.values


def _searched(given: Mapping[str, Any]) -> _Found:
    file, problem = trusted_file()
    if file is not None:
        other = _other_setting(given, file.instance)
        file, problem = confirmed(file) if other is None else (None, f"{file.path} is not used: {other}")
    if file is None:
        return _Found(_of_local_server(given), problem=problem)
    dev = file.instance
    values = {
        "url": dev.server_url,
        "admin_api_token": dev.api_token,
        "relay_url": dev.relay_url,
        "relay_secret": [dev.relay_secret],
    }
    return _Found(values, used=f"using {file.path}: server {dev.server_url}, relay {dev.relay_url}")


def _of_local_server(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return address and token of a running `awaithumans dev`. A file left behind by an ended one is ignored."""
    server = None if given.keys() >= _OF_SERVER else announced_server()
    if server is None or (given.get("url") is not None and not is_same_place(str(given["url"]), server.url)):
        return {}  # its token must not be sent to another server
    if not server.is_running():
        return {}
    values: dict[str, Any] = {"url": server.url, "admin_api_token": server.admin_token}
    return {name: value for name, value in values.items() if value and given.get(name) is None}


def _other_setting(given: Mapping[str, Any], dev: DevInstance) -> str | None:
    """Return which of the given settings belongs to other servers than those of the instance; None: none does."""
    for field, address in (("url", dev.server_url), ("relay_url", dev.relay_url)):
        if given.get(field) is not None and not is_same_place(str(given[field]), address):
            return f"AWAITHUMANS_{field.upper()} (or the argument in its place) names another address than {address}"
    for field, secret in (("admin_api_token", dev.api_token), ("relay_secret", dev.relay_secret)):
        if given.get(field) is not None and _secrets(given[field]) != [secret.get_secret_value()]:
            return f"AWAITHUMANS_{field.upper()} (or the argument in its place) is set to another secret"
    return None


def _secrets(value: object) -> list[str]:
    parts = cast("list[object]", value) if isinstance(value, list) else [value]
    return [(part.get_secret_value() if isinstance(part, SecretStr) else str(part)).strip() for part in parts]


_NOT_IN_TIME = _Found(
    {},
    problem=f"development servers on this machine are not used: they did not answer within {LIMIT_SECONDS:g} s, or "
    "this event loop refuses to wait for a thread. Load the settings before it starts",
)
