"""Engines, made of the flags of the command line.

A composition root: the one module of the relay that knows the adapters.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from awaithumans_core.engine import Engine
from awaithumans_core.errors import SettingsError
from awaithumans_core.safe_logging import safe_logger

if TYPE_CHECKING:
    from temporalio.runtime import Runtime

MakesEngines = Callable[[AsyncExitStack], Awaitable[Sequence[Engine]]]
"""Makes what is to be reached; the stack closes it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom the relay is to wake, as its flags say."""

    temporal: str | None
    """Address of a Temporal server."""
    graphs: Sequence[str]
    """Graphs of this process, each as NAME=module:attribute."""
    langgraph_server: str | None
    """URL of a LangGraph server."""
    namespaces: Sequence[str] = ()
    """Temporal namespaces that answers may go to; empty: the client's own."""

    def anybody(self) -> bool:
        """Whether there is anybody to wake."""
        return bool(self.temporal is not None or self.graphs or self.langgraph_server is not None)

    async def engines(self, stack: AsyncExitStack) -> list[Engine]:
        """All of them; graphs share one.

        Raises:
            SettingsError: a flag is none that an engine can be made of, or needs what is not installed.
        """
        try:
            return [
                *_temporal(self.temporal, self.namespaces),
                *await _graphs(self.graphs, stack),
                *_server(self.langgraph_server, stack),
            ]
        except ImportError as missing:
            raise SettingsError(str(missing)) from missing

    def apart(self) -> list[tuple[str, MakesEngines]]:
        """Each flag by itself: what it names, in words, and its engine."""
        named = [(f"graph {each}", Wanted(None, [each], None)) for each in self.graphs]
        if self.temporal is not None:
            named.insert(0, (f"Temporal {self.temporal}", Wanted(self.temporal, [], None, self.namespaces)))
        if self.langgraph_server is not None:
            named.append((f"LangGraph server {self.langgraph_server}", Wanted(None, [], self.langgraph_server)))
        return [(name, wanted.engines) for name, wanted in named]


def _temporal(address: str | None, namespaces: Sequence[str]) -> list[Engine]:
    if address is None:
        return []
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise SettingsError(f"--temporal {address}: write it as host:port, for instance localhost:7233")
    from awaithumans_adapters.temporal import TemporalEngine  # first: without Temporal it says what to install

    runtime = _temporal_runtime()
    from temporalio.client import Client

    return [TemporalEngine(lambda: Client.connect(address, runtime=runtime), namespaces=namespaces or None)]


def _temporal_runtime() -> "Runtime":
    """What runs Temporal's clients. Its warnings go to our log; by itself it writes them to the terminal, coloured."""
    from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig

    forwarding = LogForwardingConfig(safe_logger("awaithumans.relay.temporal"), append_target_to_name=False)
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(LoggingConfig.default.filter, forwarding)))


async def _graphs(specs: Sequence[str], stack: AsyncExitStack) -> list[Engine]:
    if not specs:
        return []
    from awaithumans_adapters.langgraph import GraphEngine

    named = [_split(spec) for spec in specs]
    if twice := {name for name, _ in named if [each for each, _ in named].count(name) > 1}:
        raise SettingsError(f"--graph: each graph needs a name of its own, and there is more than one {min(twice)!r}")
    return [GraphEngine({name: await _graph(f"{name}={place}", stack) for name, place in named})]


def _server(url: str | None, stack: AsyncExitStack) -> list[Engine]:
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
