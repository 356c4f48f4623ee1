"""`awaithumans-relay serve`: checks everything it needs, reports each problem in a line, and runs."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import cleaned, in_brackets
from awaithumans_core.http.clients import check_environment
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.settings import Settings, check_all
from awaithumans_relay.app import create_app
from awaithumans_relay.commands import startup_checks
from awaithumans_relay.commands.engines import EngineFlags
from awaithumans_relay.commands.existing_waits import shown_url
from awaithumans_relay.commands.terminal import UnreachableError
from awaithumans_relay.monitoring.repeated_lines import RepeatFilter, Repeats
from awaithumans_relay.runtime.tuning import tune
from awaithumans_relay.store import Store
from awaithumans_relay.store.database.url import parsed
from awaithumans_relay.web import bounded_http

logger = safe_logger("awaithumans.relay")

HANG_UP_SECONDS = 3
"""Seconds that callers have when the relay stops, so that a caller that sends its body slowly does not block the drain.
"""


async def serve(
    flags: EngineFlags,
    *,
    host: str,
    port: int,
    database: str,
    retention: timedelta,
    log_level: str,
    tls: Mapping[str, Any],
) -> None:
    """Run the relay until it is stopped.

    Raises:
        SettingsError: A setting or flag is not usable.
        UnreachableError: A dependency is unreachable now.
    """
    _check_settings(flags)
    host = cleaned(host).removeprefix("[").removesuffix("]")
    async with AsyncExitStack() as stack:
        engines = await flags.engines(stack)
        app = create_app(engines, database=database, retention=retention)
        await _check_store(database)
        _check_port(host, port)
        # No access log: every line would be a callback, which is logged with its task. uvicorn's own log format is not
        # used.
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level=log_level,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=HANG_UP_SECONDS,
            **bounded_http.OPTIONS,
            **tls,
        )
        _check_tls(config)
        _combine_request_errors()
        page = (
            f"{'https' if tls else 'http'}://{in_brackets(host)}:{port}/operate"
            if Settings.load().operator_token()
            else "off"
        )
        logger.info(
            "relay %s; engines: %s; waits in %s; operator's page: %s",
            version("awaithumans-workflows"),
            ", ".join(engine.name for engine in engines),
            shown_url(database),
            page,
        )
        stack.callback(asyncio.create_task(startup_checks.log_problems()).cancel)
        tune()
        await uvicorn.Server(config).serve()


def log_env_file(file: Path | None) -> None:
    """Log which env file the command line has read."""
    if file is not None:
        logger.info("settings that the environment lacks are read from %s", file)


def tls_settings(certificate: Path | None, key: Path | None, authorities: Path | None) -> dict[str, Any]:
    """Return uvicorn's settings for TLS. Without any file it serves plain HTTP."""
    if certificate is None and (key or authorities):
        given = "--ssl-keyfile" if key else "--ssl-ca-certs"
        raise typer.BadParameter("TLS needs a certificate: add --ssl-certfile", param_hint=given)
    files = {"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ca_certs": authorities}
    for option, file in files.items():
        if file is not None and not file.is_file():
            raise typer.BadParameter(f"there is no file {file}", param_hint=f"--{option.replace('_', '-')}")
    return {option: str(file) for option, file in files.items() if file} | (
        {"ssl_cert_reqs": ssl.CERT_REQUIRED} if authorities else {}
    )


_OF_CALLERS = ("Invalid HTTP request", "Unsupported upgrade request", "No supported WebSocket library")
"""The beginnings of uvicorn's log lines about malformed requests."""


def _combine_request_errors() -> None:
    """Combine uvicorn's many lines about malformed requests into one."""
    repeats = Repeats(logger)
    filters = RepeatFilter(repeats, lambda record: str(record.msg).startswith(_OF_CALLERS))
    logging.getLogger("uvicorn.error").addFilter(filters)


def _check_tls(config: uvicorn.Config) -> None:
    """Check the TLS files before the server starts, which would report a problem as a traceback."""
    try:
        config.load()
    except OSError as unusable:  # OpenSSL's errors are OSErrors as well
        raise SettingsError(
            f"TLS cannot be served with these files ({unusable.strerror or unusable}): --ssl-certfile and "
            "--ssl-keyfile must be a certificate and its own key, and --ssl-ca-certs certificates; each in PEM, and "
            "readable for the relay's user"
        ) from None


def _check_settings(flags: EngineFlags) -> None:
    """Report everything that is wrong with the settings at once.

    Graphs of this process ask their next question from here, so they also need the relay's URL.
    """
    settings = Settings.load().with_local_key()
    checks = [check_environment, settings.token, settings.signer, settings.key_ring, settings.operator_token]
    check_all(*checks, *([settings.relay] if flags.graphs else []), flags.check_any_given)


async def _check_store(database: str) -> None:
    """Check the database before the server starts, which would report a problem as a traceback."""
    store = Store(database)
    try:
        await store.start()
    except (SQLAlchemyError, OSError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
        file = parsed(database).get_backend_name() == "sqlite"
        advice = "Create its folder and let the relay's user write to it" if file else "Start it"
        raise UnreachableError(
            f"the database {shown_url(database)} is unreachable: {reason}. {advice}, or give another with --database "
            "or AWAITHUMANS_RELAY_DATABASE"
        ) from None
    except RuntimeError as later_release:
        raise SettingsError(f"--database {shown_url(database)}: {later_release}") from None
    finally:
        await store.stop()


def _check_port(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as taken:
        if taken.errno not in {errno.EADDRINUSE, errno.EACCES} and not isinstance(taken, socket.gaierror):
            return  # one of several addresses that this machine lacks; the server reports if none works
        raise UnreachableError(
            f"cannot listen on {in_brackets(host)}:{port} ({taken.strerror}): stop the process that uses it, or "
            "give another --port or --host"
        ) from None
