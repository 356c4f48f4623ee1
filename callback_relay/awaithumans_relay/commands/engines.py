"""Creates engines from the flags of the command line.

This is a composition root: the one module of the relay that knows the adapters.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from awaithumans_core.engine import Engine
from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import cleaned, http_address, without_user
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store.database.url import INSTALL_POSTGRES

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.converter import DataConverter
    from temporalio.envconfig import ClientConnectConfig
    from temporalio.runtime import Runtime

EngineFactory = Callable[[AsyncExitStack], Awaitable[Sequence[Engine]]]
"""Creates the engines to reach. The stack closes them."""


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """The engines that the flags of the command line request."""

    temporal: str | None
    """Address of a Temporal server."""
    graphs: Sequence[str]
    """Graphs of this process, each as NAME=module:attribute."""
    langgraph_server: str | None
    """URL of a LangGraph server."""
    namespaces: Sequence[str] = ()
    """Temporal namespaces that answers may go to. Empty: the client's own."""
    profiles: Sequence[str] = ()
    """Profiles of Temporal's configuration file, each with its own client."""
    data_converter: str | None = None
    """The data converter of the Temporal workers, as module:attribute."""
    langgraph_headers: str | None = None
    """Headers for the LangGraph server, or the function that chooses them, as module:attribute."""
    graph_thread: bool = False
    """Whether the graphs run in a separate thread."""
    graph_context: str | None = None
    """Runtime context of the graphs, or a function that creates it, as module:attribute. `none`: they have none."""
    graph_config: str | None = None
    """Config of the graphs, or a function that creates it, as module:attribute."""

    def check_any_given(self) -> None:
        """Check that at least one engine is requested.

        Raises:
            SettingsError: None is.
        """
        if self.temporal is None and not self.profiles and not self.graphs and self.langgraph_server is None:
            raise SettingsError(
                "no engine: give --temporal ADDRESS, --temporal-profile NAME, --graph NAME=module:attribute, "
                "--langgraph-server URL, or several of them"
            )

    async def engines(self, stack: AsyncExitStack) -> list[Engine]:
        """Create all requested engines. Graphs share one.

        Raises:
            SettingsError: A flag is not usable for an engine, or needs a package that is not installed.
        """
        try:
            return [
                *await _temporal(self),
                *await _graphs(self, stack),
                *_server(self.langgraph_server, self.langgraph_headers, stack),
            ]
        except ImportError as missing:
            raise SettingsError(str(missing)) from missing

    def separately(self) -> list[tuple[str, EngineFactory]]:
        """Return the flags one by one, each with a name to show and the function that creates its engine."""
        graphs = replace(self, temporal=None, profiles=[], langgraph_server=None, langgraph_headers=None)
        named: list[tuple[str, EngineFlags]] = [
            (f"graph {each}", replace(graphs, graphs=[each])) for each in self.graphs
        ]
        temporal = replace(self, graphs=[], langgraph_server=None, langgraph_headers=None)
        if self.temporal is not None:
            named.insert(0, (f"Temporal {self.temporal}", temporal))
        else:
            named[:0] = [(f"Temporal profile {each}", replace(temporal, profiles=[each])) for each in self.profiles]
        if self.langgraph_server is not None:
            server = EngineFlags(None, [], self.langgraph_server, langgraph_headers=self.langgraph_headers)
            named.append((f"LangGraph server {without_user(self.langgraph_server)}", server))
        return [(name, flags.engines) for name, flags in named]


async def _temporal(flags: EngineFlags) -> list[Engine]:
    if flags.temporal is None and not flags.profiles:
        return []
    from awaithumans_adapters.temporal import (
        TemporalEngine,
    )  # first: without Temporal its error names the package to install

    converter = await _data_converter(flags.data_converter)
    runtime = _temporal_runtime()
    if len(flags.profiles) < 2:
        config = _connect_config(next(iter(flags.profiles), None), flags.temporal, alone=True)
        return [TemporalEngine(_connecting(config, converter, runtime), namespaces=flags.namespaces or None)]
    clients: dict[str, Callable[[], Awaitable[Client]]] = {}
    for profile in flags.profiles:
        config = _connect_config(profile, None, alone=False)
        namespace = config.get("namespace", "default")
        if namespace in clients:
            raise SettingsError(f"--temporal-profile {profile}: another profile has its namespace {namespace!r}")
        clients[namespace] = _connecting(config, converter, runtime)
    return [TemporalEngine(clients)]


def _connect_config(profile: str | None, address: str | None, *, alone: bool) -> "ClientConnectConfig":
    """Return how to connect, from Temporal's own configuration file and TEMPORAL_* variables.

    Args:
        profile: The name of the profile. Default: TEMPORAL_PROFILE, then `default`.
        address: Used instead of the configured one.
        alone: Whether it is the only profile. Variables would set the same address, namespace and key for several.
    """
    from temporalio.envconfig import ClientConfigProfile

    variables = {
        name: value
        for name, value in os.environ.items()
        if alone or not name.startswith("TEMPORAL_") or name == "TEMPORAL_CONFIG_FILE"
    }
    named = f"--temporal-profile {profile}" if profile else "Temporal's configuration"
    try:
        config = ClientConfigProfile.load(profile, override_env_vars=variables).to_client_connect_config()
    except (RuntimeError, ValueError, TypeError, OSError) as wrong:
        raise SettingsError(
            f"{named}: {wrong}: correct TEMPORAL_CONFIG_FILE (TOML), the profile or the TEMPORAL_* variables"
        ) from None
    config["target_host"] = _host_and_port(config.get("target_host", "localhost:7233") if address is None else address)
    return config


def _connecting(
    config: "ClientConnectConfig", converter: "DataConverter", runtime: "Runtime"
) -> "Callable[[], Awaitable[Client]]":
    from temporalio.client import Client

    return lambda: Client.connect(**config, data_converter=converter, runtime=runtime)


def _host_and_port(address: str) -> str:
    """Return the address, cleaned and checked."""
    address = cleaned(address)
    try:
        http_address(f"http://{address}")
    except ValueError:
        usable = False
    else:
        host, _, port = address.rpartition(":")
        usable = bool(host) and "/" not in host and port.isascii() and port.isdigit()
    if not usable:
        raise SettingsError(f"--temporal {address!r}: write it as host:port, for instance localhost:7233 or [::1]:7233")
    return address


async def _data_converter(reference: str | None) -> "DataConverter":
    """Return the workers' data converter, or the one that a function without arguments creates."""
    from temporalio.converter import DataConverter

    if reference is None:
        return DataConverter.default
    flag = f"--temporal-data-converter {reference}"
    if not all(reference.partition(":")):
        raise SettingsError(f"{flag}: write it as module:attribute, for instance my_app.temporal:data_converter")
    made = _attribute(flag, reference)
    if inspect.isroutine(made):
        try:
            made = made()
            made = await made if inspect.isawaitable(made) else made
        except Exception as failed:  # any error of the user's function; its text may quote a key
            raise SettingsError(f"{flag}: the function fails ({type(failed).__name__})") from failed
    if not isinstance(made, DataConverter):
        raise SettingsError(
            f"{flag} is {type(made).__name__}: give the temporalio.converter.DataConverter of the workers, or a "
            "function without arguments that makes it"
        )
    return made


def _temporal_runtime() -> "Runtime":
    """Create the runtime of Temporal's clients.

    Its warnings go to our log. By default it prints them, coloured, to the terminal.
    """
    from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig

    forwarding = LogForwardingConfig(safe_logger("awaithumans.relay.temporal"), append_target_to_name=False)
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(LoggingConfig.default.filter, forwarding)))


async def _graphs(flags: EngineFlags, stack: AsyncExitStack) -> list[Engine]:
    if not flags.graphs:
        return []
    from awaithumans_adapters.langgraph import GraphEngine, GraphThread

    named = [_split(spec) for spec in flags.graphs]
    if twice := {name for name, _ in named if [each for each, _ in named].count(name) > 1}:
        raise SettingsError(f"--graph: the name {min(twice)!r} is given more than once; give each graph its own name")
    options = _graph_options(flags)
    graphs = {name: _attribute(f"--graph {name}={reference}", reference) for name, reference in named}
    try:
        engine = GraphEngine(graphs, thread=GraphThread() if flags.graph_thread else None, **options)
        await stack.enter_async_context(engine.opened())
    except SettingsError as wrong:
        raise SettingsError(f"--graph: {wrong.text}") from wrong
    return [engine]


def _graph_options(flags: EngineFlags) -> dict[str, Any]:
    """Return the context and the config with which threads are resumed."""
    given: dict[str, Any] = {}
    if flags.graph_context is not None:
        none = flags.graph_context == "none"
        given["context"] = None if none else _named("--graph-context", flags.graph_context)
    if flags.graph_config is not None:
        config = given["config"] = _named("--graph-config", flags.graph_config)
        if not callable(config) and not isinstance(config, Mapping):
            raise SettingsError(
                f"--graph-config {flags.graph_config} is {type(config).__name__}: give a config, or a function that "
                "returns one for graph name and thread id"
            )
    return given


def _named(flag: str, reference: str) -> Any:
    if not all(reference.partition(":")):
        raise SettingsError(f"{flag} {reference}: write it as module:attribute, for instance my_app.relay:settings")
    return _attribute(f"{flag} {reference}", reference)


def _server(url: str | None, headers: str | None, stack: AsyncExitStack) -> list[Engine]:
    if url is None:
        return []
    from awaithumans_adapters.langgraph import LangGraphServerEngine

    try:
        address = http_address(url, credentials=True)
    except ValueError as malformed:
        raise SettingsError(f"--langgraph-server: {malformed}") from None
    engine = LangGraphServerEngine(address, headers=None if headers is None else _headers(headers))
    stack.push_async_callback(engine.aclose)
    return [engine]


def _headers(reference: str) -> Any:
    """Return the headers for the LangGraph server, or the function that chooses them."""
    flag = f"--langgraph-server-headers {reference}"
    if not all(reference.partition(":")):
        raise SettingsError(f"{flag}: write it as module:attribute, for instance my_app.relay:headers")
    made: Any = _attribute(flag, reference)
    if callable(made) or isinstance(made, Mapping):
        return cast("Any", made)
    raise SettingsError(
        f"{flag} is {type(made).__name__}: give a mapping of headers, or a function that returns one for a ServerTarget"
    )


def _split(spec: str) -> tuple[str, str]:
    name, _, reference = spec.partition("=")
    module, _, attribute = reference.partition(":")
    if not (name and module and attribute):
        raise SettingsError(f"--graph {spec}: write it as NAME=module:attribute, for instance refunds=my_app:graph")
    return name, reference


def _attribute(flag: str, reference: str) -> Any:
    """Return what module:attribute names. The working directory is searched as well."""
    module, _, attribute = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        install = f". {INSTALL_POSTGRES}" if "psycopg" in str(error) else ""  # a checkpointer of the graph needs it
        raise SettingsError(f"{flag}: {error}{install}") from error
