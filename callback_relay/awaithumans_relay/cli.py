"""`awaithumans-relay`: the relay from the command line.

A composition root: the one module here that knows the adapters.
"""

import asyncio
import errno
import importlib
import inspect
import logging
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.engine import Engine
from awaithumans_core.errors import SettingsError
from awaithumans_core.settings import Settings
from awaithumans_relay import logs, startup
from awaithumans_relay.app import create_app
from awaithumans_relay.commands import redrive as redriving
from awaithumans_relay.commands import waits as listing
from awaithumans_relay.commands.checks import Engines
from awaithumans_relay.commands.derive_key import derived_keys
from awaithumans_relay.commands.doctor import examine
from awaithumans_relay.commands.existing import shown_url
from awaithumans_relay.commands.terminal import AwayError, Database, Json, troubles_told
from awaithumans_relay.database import KINDS
from awaithumans_relay.logs import LogFormat
from awaithumans_relay.store import DEFAULT_DATABASE, Store, WaitState
from awaithumans_relay.tuning import tune

if TYPE_CHECKING:
    from temporalio.runtime import Runtime

Temporal = Annotated[
    str | None,
    typer.Option(help="Wake Temporal workflows at this address, for instance localhost:7233. Any namespace there."),
]
Graphs = Annotated[
    list[str] | None,
    typer.Option(
        help="Wake threads of this compiled LangGraph graph, or of the one this function makes: "
        "NAME=module:attribute. Repeat for more."
    ),
]
LangGraphServer = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Wake threads of the LangGraph server at this URL, for instance http://localhost:2024."
    ),
]
LEVELS = ("debug", "info", "warning", "error", "critical")
"""Those that logging and uvicorn both know by these names."""
HANG_UP_SECONDS = 3
"""Callers get this long when the relay stops: whoever sends a body drop by drop does not keep it from its drain."""
OneEngine = Annotated[
    str | None, typer.Option(help="Only waits for this engine: temporal, langgraph, langgraph-server, or your own.")
]

logger = logging.getLogger("awaithumans.relay")

cli = typer.Typer(
    name="awaithumans-relay",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's way
    if wanted:
        typer.echo(f"awaithumans-relay {version('awaithumans-workflows')}")
        raise typer.Exit


@cli.callback()
def relay(
    *,
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the awaithumans server's callbacks and wake the Temporal workflows and LangGraph threads that asked.

    Settings are read from the environment: see `awaithumans-relay serve --help`.

    \b
    A day with it:
      awaithumans-relay serve --temporal localhost:7233    run it
      awaithumans-relay doctor --temporal localhost:7233   would answers arrive?
      awaithumans-relay waits --state parked               what needs a hand?
      awaithumans-relay redrive --all                      it is mended: again
    """


@cli.command()
def serve(
    temporal: Temporal = None,
    graph: Graphs = None,
    langgraph_server: LangGraphServer = None,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8787,
    database: Annotated[
        str,
        typer.Option(
            envvar="AWAITHUMANS_RELAY_DATABASE",
            help="Where waits are kept: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME (extra `postgres`). "
            "The file must outlive the process: unfinished waits are in it.",
        ),
    ] = DEFAULT_DATABASE,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[
        LogFormat, typer.Option(help="text for people, json for machines: one object a line, with task and wait id.")
    ] = LogFormat.TEXT,
    ssl_certfile: Annotated[Path | None, typer.Option(help="Serve TLS with this certificate (PEM).")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    ssl_ca_certs: Annotated[
        Path | None, typer.Option(help="Let in only clients with a certificate of one of these authorities.")
    ] = None,
) -> None:
    """Run the relay.

    \b
    It needs, in the environment:
      AWAITHUMANS_URL               the awaithumans server
      AWAITHUMANS_ADMIN_API_TOKEN   its token, to read tasks nobody called back
      AWAITHUMANS_RELAY_SECRET      shared with everyone who asks through this
                                    relay (16 characters or more)
      AWAITHUMANS_WEBHOOK_KEY       the server's derived webhook key, or
      AWAITHUMANS_PAYLOAD_KEY       in its place, the server's root key
      AWAITHUMANS_RELAY_URL         with --graph only: where the server reaches
                                    this relay; resumed graphs ask through it
      AWAITHUMANS_RELAY_OPERATOR_TOKEN
                                    opens the operator's page and API (16
                                    characters or more); else they are closed
      LANGGRAPH_API_KEY             with --langgraph-server only, if that server
                                    wants a key (LANGSMITH_API_KEY does as well)
    Whoever asks through this relay needs AWAITHUMANS_URL, _ADMIN_API_TOKEN,
    _RELAY_SECRET and _RELAY_URL: a LangGraph server, too, since its nodes ask.

    \b
    Examples:
      awaithumans-relay serve --temporal localhost:7233
      awaithumans-relay serve --graph refunds=my_app.graphs:graph --port 9000
      awaithumans-relay serve --langgraph-server http://localhost:2024
    """
    if log_level.lower() not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(LEVELS)}", param_hint="--log-level")
    logs.configure(log_level, log_format)
    with troubles_told():
        asyncio.run(
            _serve(
                temporal,
                graph or [],
                langgraph_server,
                host=host,
                port=port,
                database=database,
                log_level=log_level.lower(),
                tls=_tls(ssl_certfile, ssl_keyfile, ssl_ca_certs),
            )
        )


@cli.command()
def waits(
    state: Annotated[list[WaitState] | None, typer.Option(help="Only waits in this state. Repeat for more.")] = None,
    engine: OneEngine = None,
    limit: Annotated[int, typer.Option(help="How many at most, the newest first.", min=1)] = 50,
    offset: Annotated[int, typer.Option(help="How many of the newest to leave out.", min=0)] = 0,
    database: Database = DEFAULT_DATABASE,
    as_json: Json = False,
) -> None:
    """List who waits for whom, since when, and what is wrong. Answers are not shown.

    \b
    States:
      open        a person has not answered yet
      answered    the answer is here and on its way to whoever asked
      delivered   whoever asked has it
      parked      it cannot be delivered, as the last error says; try `redrive`
    It reads the database, so it works while the relay is down.

    \b
    Examples:
      awaithumans-relay waits --state parked
      awaithumans-relay waits --engine temporal --limit 10
      awaithumans-relay waits --json | jq -r '.[].last_error' | sort | uniq -c
    """
    with troubles_told():
        asyncio.run(listing.show(database, state or [], engine, limit=limit, offset=offset, as_json=as_json))


@cli.command()
def redrive(
    task_id: Annotated[str | None, typer.Argument(help="The task whose answer is parked.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is parked.")] = False,
    engine: Annotated[str | None, typer.Option(help="With --all: only what is parked for this engine.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")] = False,
    database: Database = DEFAULT_DATABASE,
) -> None:
    """Have parked answers delivered once more, after what parked them is mended.

    A LangGraph thread that failed after it had its answer runs on from there.

    It writes to the database: a running relay comes upon it within seconds, and one that is down when it starts.

    \b
    Examples:
      awaithumans-relay redrive 4f1c2a7e9b3d4e6f8a0b1c2d3e4f5a6b
      awaithumans-relay redrive --all --engine langgraph --yes

    \b
    Exit codes: 0 done, 1 that task is not parked, 2 it could not be done.
    """
    if task_id is not None and everything:
        raise typer.BadParameter("give a task id or --all, not both")
    if task_id is None and not everything:
        raise typer.BadParameter("give a task id, or --all")
    if task_id is not None and engine is not None:
        raise typer.BadParameter("--engine goes with --all", param_hint="--engine")
    with troubles_told():
        code = asyncio.run(redriving.redrive(database, task_id, engine, sure=yes))
    raise typer.Exit(code)


@cli.command()
def derive_key() -> None:
    """Print AWAITHUMANS_WEBHOOK_KEY, derived from AWAITHUMANS_PAYLOAD_KEY.

    The relay needs the derived key only; with it, the awaithumans server's root key need not leave its machine.
    What is printed is a secret, too. During a rotation ("new,old") both are derived.

    \b
    Example, on the server's machine:
      AWAITHUMANS_WEBHOOK_KEY=$(awaithumans-relay derive-key)
    """
    with troubles_told():
        typer.echo(derived_keys())


@cli.command()
def doctor(
    temporal: Temporal = None,
    graph: Graphs = None,
    langgraph_server: LangGraphServer = None,
    database: Database = DEFAULT_DATABASE,
    as_json: Json = False,
) -> None:
    """Look whether an answer would find its way: settings, server, database, engines, and the running relay.

    Run it beside the relay, with the relay's environment and the flags of its `serve`. The last check sends a signed
    answer for nobody to AWAITHUMANS_RELAY_URL and follows it into the database; it leaves nothing behind. Each failure
    comes with what mends it.

    \b
    Examples:
      awaithumans-relay doctor --temporal localhost:7233
      awaithumans-relay doctor --graph refunds=my_app.graphs:graph --json

    \b
    Exit codes: 0 all is well, 1 something is not.
    """
    engines: list[tuple[str, Engines]] = []
    if temporal is not None:
        engines.append((f"Temporal {temporal}", lambda _: _soon(_temporal(temporal))))
    engines += [(f"graph {each}", partial(_graphs, [each])) for each in graph or []]
    if langgraph_server is not None:
        url = langgraph_server
        engines.append((f"LangGraph server {url}", lambda stack: _soon(_langgraph_server(url, stack))))
    with troubles_told():
        well = asyncio.run(examine(database, engines, as_json=as_json))
    raise typer.Exit(0 if well else 1)


async def _serve(
    temporal: str | None,
    graphs: list[str],
    langgraph_server: str | None,
    *,
    host: str,
    port: int,
    database: str,
    log_level: str,
    tls: Mapping[str, Any],
) -> None:
    _look_at_settings(asks=bool(graphs), wakes=any((temporal is not None, graphs, langgraph_server is not None)))
    async with AsyncExitStack() as stack:
        engines = [
            *_temporal(temporal),
            *await _graphs(graphs, stack),
            *_langgraph_server(langgraph_server, stack),
        ]
        app = _app(engines, database)
        await _look_at_store(database)
        _look_at_port(host, port)
        page = f"{'https' if tls else 'http'}://{host}:{port}/operate" if Settings.load().operator_token() else "off"
        logger.info(
            "relay %s; engines: %s; waits in %s; operator's page: %s",
            version("awaithumans-workflows"),
            ", ".join(engine.name for engine in engines),
            shown_url(database),
            page,
        )
        # No access log: every line would be a callback, which is logged with its task. No format of uvicorn's own.
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level=log_level,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=HANG_UP_SECONDS,
            **tls,
        )
        stack.callback(asyncio.create_task(startup.warn()).cancel)
        tune()
        await uvicorn.Server(config).serve()


def _tls(certificate: Path | None, key: Path | None, authorities: Path | None) -> dict[str, Any]:
    """uvicorn's settings for TLS. Nothing given: plain HTTP."""
    if certificate is None and (key or authorities):
        given = "--ssl-keyfile" if key else "--ssl-ca-certs"
        raise typer.BadParameter("TLS needs a certificate: give --ssl-certfile, too", param_hint=given)
    files = {"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ca_certs": authorities}
    for option, file in files.items():
        if file is not None and not file.is_file():
            raise typer.BadParameter(f"there is no file {file}", param_hint=f"--{option.replace('_', '-')}")
    return {option: str(file) for option, file in files.items() if file} | (
        {"ssl_cert_reqs": ssl.CERT_REQUIRED} if authorities else {}
    )


def _app(engines: list[Engine], database: str) -> FastAPI:
    try:
        return create_app(engines, database=database)
    except (SQLAlchemyError, ImportError) as unusable:
        raise SettingsError(f"--database {shown_url(database)}: {unusable}; {KINDS}") from None


def _look_at_settings(*, asks: bool, wakes: bool) -> None:
    """All that is wrong with them at once.

    Args:
        asks: Whether graphs run in this process, and ask their next question from here.
        wakes: Whether there is anybody to wake.
    """
    settings = Settings.load()
    wrong: list[str] = []
    looks = [settings.token, settings.signer, settings.key_ring, settings.operator_token]
    for look in [*looks, settings.relay] if asks else looks:
        try:
            look()
        except SettingsError as error:
            wrong.append(str(error))
    if not wakes:
        wrong.append(
            "nobody to wake: give --temporal ADDRESS, --graph NAME=module:attribute, --langgraph-server URL, or "
            "several of them"
        )
    if wrong:
        raise SettingsError("\n".join(wrong))


async def _look_at_store(database: str) -> None:
    """Before the server starts, which would tell it in a traceback."""
    store = Store(database)
    try:
        await store.start()
    except (SQLAlchemyError, OSError) as away:
        reason = " ".join(str(getattr(away, "orig", None) or away).split()).rstrip(".")
        raise AwayError(
            f"the database {shown_url(database)} does not answer: {reason}. Start it, or give another with --database "
            "or AWAITHUMANS_RELAY_DATABASE"
        ) from None
    except RuntimeError as later:
        raise SettingsError(f"--database {shown_url(database)}: {later}") from None
    finally:
        await store.stop()


def _look_at_port(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as taken:
        if taken.errno not in {errno.EADDRINUSE, errno.EACCES} and not isinstance(taken, socket.gaierror):
            return  # an address of several that this machine lacks: the server says whether another did
        raise AwayError(
            f"cannot listen on {host}:{port} ({taken.strerror}): stop what does, or give another --port or --host"
        ) from None


async def _soon(engines: list[Engine]) -> list[Engine]:
    return engines


def _temporal(address: str | None) -> list[Engine]:
    if address is None:
        return []
    _, colon, port = address.rpartition(":")
    if not address or "://" in address or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise SettingsError(f"--temporal {address}: write it as host:port, for instance localhost:7233")
    from temporalio.client import Client

    from awaithumans_adapters.temporal import TemporalEngine

    runtime = _temporal_runtime()
    return [TemporalEngine(lambda: Client.connect(address, runtime=runtime))]


def _temporal_runtime() -> "Runtime":
    """What runs Temporal's clients. Its warnings go to our log; by itself it writes them to the terminal, coloured."""
    from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig

    forwarding = LogForwardingConfig(logging.getLogger("awaithumans.relay.temporal"), append_target_to_name=False)
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(LoggingConfig.default.filter, forwarding)))


async def _graphs(specs: list[str], stack: AsyncExitStack) -> list[Engine]:
    if not specs:
        return []
    from awaithumans_adapters.langgraph import GraphEngine

    named = [_split(spec) for spec in specs]
    if twice := {name for name, _ in named if [each for each, _ in named].count(name) > 1}:
        raise SettingsError(f"--graph: each graph needs a name of its own, and there is more than one {min(twice)!r}")
    return [GraphEngine({name: await _graph(f"{name}={place}", stack) for name, place in named})]


def _langgraph_server(url: str | None, stack: AsyncExitStack) -> list[Engine]:
    if url is None:
        return []
    from awaithumans_adapters.langgraph import LangGraphServerEngine

    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--langgraph-server {url}: write it as a URL, for instance http://localhost:2024")
    engine = LangGraphServerEngine(url)
    stack.push_async_callback(engine.aclose)
    return [engine]


def _split(spec: str) -> tuple[str, str]:
    name, _, place = spec.partition("=")
    module, _, attribute = place.partition(":")
    if not (name and module and attribute):
        raise SettingsError(f"--graph {spec}: write it as NAME=module:attribute, for instance refunds=my_app:graph")
    return name, place


async def _graph(spec: str, stack: AsyncExitStack) -> Any:
    """A compiled graph, or a function that makes one.

    The function may be plain, async, or an async context manager that holds its checkpointer open.
    """
    _, place = _split(spec)
    module, _, attribute = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"--graph {spec}: {error}") from error
    try:
        if inspect.isroutine(made):
            made = made()
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, AbstractAsyncContextManager):
            made = await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", made))
    except Exception as failed:  # whatever a function of the user's raises
        raise SettingsError(
            f"--graph {spec}: {attribute}() fails ({type(failed).__name__}: {failed}): give a compiled graph, or a "
            "function without arguments that makes one"
        ) from failed
    return made


def main() -> None:
    """Entry point."""
    cli()


if __name__ == "__main__":
    main()
