"""The command line `awaithumans-relay`. This module declares the options; the package `commands` does the work.

Each command imports what it runs, so that `--help` and completion load no server, database or HTTP client.
"""

import os
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from awaithumans_relay.commands.role import Role
from awaithumans_relay.commands.terminal import Database, Json, errors_reported
from awaithumans_relay.monitoring import logs
from awaithumans_relay.monitoring.logs import LogFormat
from awaithumans_relay.store.defaults import DEFAULT_DATABASE, RETENTION
from awaithumans_relay.store.wait_state import WaitState

if TYPE_CHECKING:
    from awaithumans_relay.commands.engines import EngineFlags

R = TypeVar("R")

Temporal = Annotated[
    str | None,
    typer.Option(help="Wake Temporal workflows at this address, for instance localhost:7233."),
]
TemporalNamespaces = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A Temporal namespace that answers may go to. Repeat for more. Without it: only the namespace `default`.",
    ),
]
TemporalProfiles = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A profile of Temporal's configuration file, with address, namespace, TLS and API key. Repeat for more, "
        "each with a namespace of its own.",
    ),
]
TemporalDataConverter = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:ATTRIBUTE",
        help="The data converter of the Temporal workers, or a function that returns it. Required if they encrypt.",
    ),
]
Graphs = Annotated[
    list[str] | None,
    typer.Option(
        help="Wake threads of this compiled LangGraph graph, or of the one this function returns: "
        "NAME=module:attribute. Repeat for more."
    ),
]
LangGraphServer = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Wake threads of the LangGraph server at this URL, for instance http://localhost:2024."
    ),
]
LangGraphServerHeaders = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:ATTRIBUTE",
        help="Headers for the LangGraph server, or a function that returns them for the user of the run.",
    ),
]
GraphContext = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:ATTRIBUTE",
        help="Runtime context of the graphs, or a function that returns it for graph name and thread id. `none`: "
        "graphs with a context_schema run without a context.",
    ),
]
GraphConfig = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:ATTRIBUTE",
        help="Config of the graphs (configurable keys, callbacks, tags), or a function that returns it for graph "
        "name and thread id.",
    ),
]
GraphThreads = Annotated[
    bool,
    typer.Option(
        "--graph-thread",
        help="Run the graphs in a separate thread, so that a node that blocks does not delay callbacks.",
    ),
]


def Port(of_what: str, usual: int) -> Any:  # noqa: N802 - used like a class, in annotations
    """Return the option for a port of `dev`."""
    return typer.Option(
        min=1,
        max=65535,
        metavar="PORT",
        help=f"Port {of_what}. Without it: {usual}, that of the last run, or a free one.",
        show_default=False,
    )


LEVELS = ("debug", "info", "warning", "error", "critical")
"""The levels that logging and uvicorn both know by these names."""
OneEngine = Annotated[
    str | None, typer.Option(help="Only waits for this engine: temporal, langgraph, langgraph-server, or your own.")
]

cli = typer.Typer(
    name="awaithumans-relay",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's way
    if wanted:
        from importlib.metadata import version

        typer.echo(f"awaithumans-relay {version('awaithumans-workflows')}")
        raise typer.Exit


@cli.callback()
def relay(
    context: typer.Context,
    *,
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Receive the awaithumans server's callbacks and wake the waiting Temporal workflows and LangGraph threads.

    Settings are read from the environment, then from `.env` in the working
    directory, then from a running `awaithumans-relay dev` of the project: see
    `awaithumans-relay serve --help`.

    \b
    Typical use:
      awaithumans-relay dev                                start all to develop
      awaithumans-relay init                               write a `.env`
      awaithumans-relay serve --temporal localhost:7233    run the relay
      awaithumans-relay doctor --temporal localhost:7233   check the setup
      awaithumans-relay waits --state parked               list failed waits
      awaithumans-relay redrive --all                      deliver them again
    """
    if context.invoked_subcommand not in _WITHOUT_ENV_FILE:
        from awaithumans_relay.commands.env_file import read_env_file

        context.obj = read_env_file()


_WITHOUT_ENV_FILE = ("dev", "init")
"""Commands that do not read `.env`: it holds the settings of a real installation, which `dev` must not call."""


def _run(work: Coroutine[Any, Any, R]) -> R:
    """Run a command's work in an event loop, and report an error of ours in one line."""
    import asyncio

    with errors_reported():
        return asyncio.run(work)


def _wanted(
    temporal: str | None,
    namespaces: list[str] | None,
    profiles: list[str] | None,
    converter: str | None,
    graphs: list[str] | None,
    server: str | None,
    headers: str | None,
) -> "EngineFlags":
    from awaithumans_relay.commands.engines import EngineFlags

    if headers is not None and server is None:
        raise typer.BadParameter("add --langgraph-server URL", param_hint="--langgraph-server-headers")
    if profiles and len(profiles) > 1 and (temporal is not None or namespaces):
        raise typer.BadParameter(
            "several profiles have their own addresses and namespaces: leave out --temporal and --temporal-namespace",
            param_hint="--temporal-profile",
        )
    if temporal is None and not profiles:
        temporal = os.environ.get("TEMPORAL_ADDRESS") or None
        for option, given in (("--temporal-namespace", namespaces), ("--temporal-data-converter", converter)):
            if given and temporal is None:
                raise typer.BadParameter("add --temporal ADDRESS", param_hint=option)
    return EngineFlags(temporal, graphs or [], server, namespaces or [], profiles or [], converter, headers)


@cli.command()
def serve(
    context: typer.Context,
    temporal: Temporal = None,
    temporal_namespace: TemporalNamespaces = None,
    temporal_profile: TemporalProfiles = None,
    temporal_data_converter: TemporalDataConverter = None,
    graph: Graphs = None,
    graph_context: GraphContext = None,
    graph_config: GraphConfig = None,
    graph_thread: GraphThreads = False,
    langgraph_server: LangGraphServer = None,
    langgraph_server_headers: LangGraphServerHeaders = None,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8787,
    database: Annotated[
        str,
        typer.Option(
            envvar="AWAITHUMANS_RELAY_DATABASE",
            show_envvar=False,  # the help text of the command names it
            show_default="awaithumans-relay.db here",
            help="Database of the waits, on SQLite or PostgreSQL. "
            "The file must outlive the process, because it holds unfinished waits.",
        ),
    ] = DEFAULT_DATABASE,
    retention_days: Annotated[
        int,
        typer.Option(
            min=1,
            max=3650,
            metavar="DAYS",
            help="Delete a wait, with its answer, this long after its delivery; one without an answer, this long after "
            "the deadline of its task. An answer that is not delivered is never deleted.",
        ),
    ] = RETENTION.days,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[
        LogFormat, typer.Option(help="text for people; json for programs, one object per line, with task and wait id.")
    ] = LogFormat.TEXT,
    ssl_certfile: Annotated[Path | None, typer.Option(help="Serve TLS with this certificate (PEM).")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="The key of the certificate.")] = None,
    ssl_ca_certs: Annotated[
        Path | None, typer.Option(help="Accept only clients with a certificate of one of these authorities.")
    ] = None,
) -> None:
    """Run the relay.

    \b
    It needs, in the environment or in `.env` (see `awaithumans-relay init`):
      AWAITHUMANS_URL               the awaithumans server
      AWAITHUMANS_ADMIN_API_TOKEN   its token, to read tasks that are not
                                    called back
      AWAITHUMANS_RELAY_SECRET      shared with all callers of this relay (32
                                    characters or more)
      AWAITHUMANS_WEBHOOK_KEY       the server's derived webhook key, or
      AWAITHUMANS_PAYLOAD_KEY       in its place, the server's root key
      AWAITHUMANS_RELAY_URL         with --graph only: the address at which the
                                    server reaches this relay
      AWAITHUMANS_RELAY_OPERATOR_TOKEN
                                    opens the operator's page and API (32
                                    characters or more; default: closed)
      AWAITHUMANS_PUBLIC_URL        the server as people reach it, for links, if
                                    that is not AWAITHUMANS_URL
      AWAITHUMANS_RELAY_DATABASE    or --database: the database of the waits,
                                    sqlite:///FILE or, with the extra `postgres`,
                                    postgresql://USER:PASSWORD@HOST/NAME
      TEMPORAL_ADDRESS, _NAMESPACE, _API_KEY, _TLS, _PROFILE, _CONFIG_FILE, ...
                                    how to connect to Temporal, as its own
                                    command line reads them; TEMPORAL_ADDRESS
                                    may replace --temporal
      LANGGRAPH_API_KEY             with --langgraph-server only, if that server
                                    requires a key (or LANGSMITH_API_KEY)
    Callers that use this relay need AWAITHUMANS_URL, _ADMIN_API_TOKEN,
    _RELAY_SECRET and _RELAY_URL, and so does a LangGraph server.

    \b
    Examples:
      awaithumans-relay serve --temporal localhost:7233
      awaithumans-relay serve --graph refunds=my_app.graphs:graph --port 9000
      awaithumans-relay serve --langgraph-server http://localhost:2024
    """
    from awaithumans_relay.commands import serve as serving

    if log_level.lower() not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is not one of {', '.join(LEVELS)}", param_hint="--log-level")
    logs.configure(log_level, log_format)
    serving.log_env_file(context.obj)
    tls = serving.tls_settings(ssl_certfile, ssl_keyfile, ssl_ca_certs)
    wanted = _wanted(
        temporal,
        temporal_namespace,
        temporal_profile,
        temporal_data_converter,
        graph,
        langgraph_server,
        langgraph_server_headers,
    )
    _run(
        serving.serve(
            replace(wanted, graph_context=graph_context, graph_config=graph_config, graph_thread=graph_thread),
            host=host,
            port=port,
            database=database,
            retention=timedelta(days=retention_days),
            log_level=log_level.lower(),
            tls=tls,
        )
    )


@cli.command()
def dev(
    graph: Graphs = None,
    graph_context: GraphContext = None,
    graph_config: GraphConfig = None,
    langgraph_server: LangGraphServer = None,
    langgraph_server_headers: LangGraphServerHeaders = None,
    temporal: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Use the Temporal server at this address and start none.")
    ] = None,
    temporal_data_converter: TemporalDataConverter = None,
    port: Annotated[int | None, Port("of the relay", 8787)] = None,
    server_port: Annotated[int | None, Port("of the awaithumans server", 3001)] = None,
    temporal_port: Annotated[int | None, Port("of the Temporal dev server", 7233)] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the tasks, workflows and keys of earlier runs in this folder first.")
    ] = False,
) -> None:
    """Start everything for development, and show what happens to your questions.

    
    It starts, on 127.0.0.1 only:
      the awaithumans server, with a first operator whose e-mail and password
      are printed; the Temporal dev server, if it is installed; this relay.
    Workers and scripts in other terminals need no variables, as long as they
    run in this folder or below it: they find the servers by the file
    .awaithumans/dev.json, which exists while the command runs.

    
    One line is printed when a question is
      asked       with the workflow or thread that asks (or `script`)
      answered    with the person who answered, and how
      delivered   to the workflow or thread, which continues
    and for each warning. Logs are in .awaithumans/dev.

    
    Tasks, workflows and keys are kept in .awaithumans/dev, so that a restart
    loses no question (a graph is loaded at the start: restart after a change).
    Ctrl-C stops everything. For production use `serve`. The relay's waits:
    awaithumans-relay waits --database sqlite:///.awaithumans/dev/relay/waits.db

    
    Examples:
      awaithumans-relay dev
      awaithumans-relay dev --graph refunds=my_app.graphs:graph
      awaithumans-relay dev --langgraph-server http://localhost:2024

    
    Exit codes: 0 stopped by a signal, 1 a server ended, 2 it cannot start.
    """
    if langgraph_server_headers is not None and langgraph_server is None:
        raise typer.BadParameter("add --langgraph-server URL", param_hint="--langgraph-server-headers")
    from awaithumans_relay.commands.dev import DevOptions, develop
    from awaithumans_relay.commands.engines import EngineFlags

    flags = EngineFlags(
        temporal,
        graph or [],
        langgraph_server,
        data_converter=temporal_data_converter,
        langgraph_headers=langgraph_server_headers,
        graph_context=graph_context,
        graph_config=graph_config,
    )
    ports = {"server": server_port, "temporal": temporal_port, "relay": port}
    raise typer.Exit(_run(develop(DevOptions(flags, ports, fresh=fresh))))


@cli.command()
def waits(
    state: Annotated[list[WaitState] | None, typer.Option(help="Only waits in this state. Repeat for more.")] = None,
    engine: OneEngine = None,
    limit: Annotated[int, typer.Option(help="Maximum number of waits, newest first.", min=1)] = 50,
    offset: Annotated[int, typer.Option(help="Number of newest waits to skip.", min=0)] = 0,
    database: Database = DEFAULT_DATABASE,
    as_json: Json = False,
) -> None:
    """List the waits: their callers, ages and problems. Answers are not shown.

    \b
    States:
      open        no person has answered yet
      answered    the answer is stored and will be delivered
      delivered   the caller has received it, or no longer exists
      parked      it cannot be delivered (see the last error); use `redrive`
    The command reads the database, so it works while the relay is down.

    \b
    Examples:
      awaithumans-relay waits --state parked
      awaithumans-relay waits --engine temporal --limit 10
      awaithumans-relay waits --json | jq -r '.[].last_error' | sort | uniq -c
    """
    from awaithumans_relay.commands import waits as listing

    _run(listing.show(database, state or [], engine, limit=limit, offset=offset, as_json=as_json))


@cli.command()
def redrive(
    task_id: Annotated[str | None, typer.Argument(help="The task whose answer is parked.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All parked waits.")] = False,
    engine: Annotated[str | None, typer.Option(help="With --all: only waits for this engine.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    database: Database = DEFAULT_DATABASE,
) -> None:
    """Deliver parked answers once more, after the reason they were parked is fixed.

    A LangGraph thread that failed after it had its answer continues from there.

    The command writes to the database. A running relay finds the change within
    seconds, a stopped one when it starts.

    \b
    Examples:
      awaithumans-relay redrive 4f1c2a7e9b3d4e6f8a0b1c2d3e4f5a6b
      awaithumans-relay redrive --all --engine langgraph --yes

    \b
    Exit codes: 0 done, 1 the task is not parked, 2 the command failed.
    """
    if task_id is not None and everything:
        raise typer.BadParameter("give a task id or --all, not both")
    if task_id is None and not everything:
        raise typer.BadParameter("give a task id, or --all")
    if task_id is not None and engine is not None:
        raise typer.BadParameter("--engine needs --all", param_hint="--engine")
    from awaithumans_relay.commands import redrive as redriving

    raise typer.Exit(_run(redriving.redrive(database, task_id, engine, sure=yes)))


@cli.command()
def derive_key() -> None:
    """Print AWAITHUMANS_WEBHOOK_KEY, derived from AWAITHUMANS_PAYLOAD_KEY.

    The relay needs only the derived key, so the awaithumans server's root key
    need not leave its machine. The printed key is a secret as well. During a
    rotation ("new,old") both keys are derived.

    \b
    Example, on the server's machine:
      AWAITHUMANS_WEBHOOK_KEY=$(awaithumans-relay derive-key)
    """
    from awaithumans_relay.commands.derive_key import derived_keys

    with errors_reported():
        typer.echo(derived_keys())


@cli.command()
def init(
    file: Annotated[Path, typer.Option(help="The file to write, or to complete.")] = Path(".env"),
) -> None:
    """Write a `.env` for a real installation: each setting explained, with a new relay secret.

    A file that exists is completed: its lines stay as they are, and the secret
    is made only if it has none. Only you can read the file, and git is set to
    ignore it. All commands read `.env` of the working directory. Workers read
    it with Settings.load(env_file=".env"). For development nothing needs to be
    set: see `awaithumans-relay dev --help`.

    \b
    Examples:
      awaithumans-relay init
      awaithumans-relay init --file /etc/awaithumans-relay.env
    """
    from awaithumans_relay.commands.init import init as write

    with errors_reported():
        for line in write(file):
            typer.echo(line)


@cli.command()
def doctor(
    temporal: Temporal = None,
    temporal_namespace: TemporalNamespaces = None,
    temporal_profile: TemporalProfiles = None,
    temporal_data_converter: TemporalDataConverter = None,
    graph: Graphs = None,
    graph_context: GraphContext = None,
    graph_config: GraphConfig = None,
    graph_thread: GraphThreads = False,
    langgraph_server: LangGraphServer = None,
    langgraph_server_headers: LangGraphServerHeaders = None,
    thread: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Also read this LangGraph thread as a delivery would, without resuming it."),
    ] = None,
    role: Annotated[
        Role | None,
        typer.Option(
            help="Whose machine this is. Default: relay, if a webhook key or a database of a relay is set, given or "
            "found here; otherwise worker.",
        ),
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: Json = False,
) -> None:
    """Check whether an answer would be delivered. Each failure comes with the way to fix it.

    \b
    On the machine of a worker or script (--role worker) it needs only what
    they need: AWAITHUMANS_URL, _ADMIN_API_TOKEN, _RELAY_URL and
    _RELAY_SECRET. It checks these, the server and the given engines, and asks
    the running relay for its engines, namespaces, server, store and key.

    \b
    On the machine of the relay (--role relay), run it with the environment
    and the flags of `serve`. It also checks keys, database and open waits,
    and sends a signed probe to AWAITHUMANS_RELAY_URL, follows it into the
    database and removes it.

    \b
    Examples:
      awaithumans-relay doctor
      awaithumans-relay doctor --temporal localhost:7233
      awaithumans-relay doctor --graph refunds=my_app.graphs:graph --json
      awaithumans-relay doctor --langgraph-server http://lg:2024 --thread 1f0e

    \b
    Exit codes: 0 all checks passed, 1 a check failed.
    """
    from awaithumans_relay.commands.doctor import examine

    wanted = _wanted(
        temporal,
        temporal_namespace,
        temporal_profile,
        temporal_data_converter,
        graph,
        langgraph_server,
        langgraph_server_headers,
    )
    wanted = replace(wanted, graph_context=graph_context, graph_config=graph_config, graph_thread=graph_thread)
    well = _run(examine(database, wanted, as_json=as_json, thread=thread, role=role))
    raise typer.Exit(0 if well else 1)


def main() -> None:
    """Run the command line; the entry point of `awaithumans-relay`."""
    cli()


if __name__ == "__main__":
    main()
