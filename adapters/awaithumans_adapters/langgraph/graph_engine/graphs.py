"""The graphs of an engine: opens and checks them, and returns their threads."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import GraphThread
from awaithumans_adapters.langgraph.graph_engine.opening import GraphSource, opened, opens_graph
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import Graph, StoredThread
from awaithumans_adapters.langgraph.internals import loop_of, without_remote_states
from awaithumans_adapters.langgraph.names import GRAPH
from awaithumans_core.engine import TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.route import Route

NOT_GIVEN = object()
"""Default of `context`. It differs from None, with which an application states that its graphs have no context."""

_NOT_OPEN = (
    "graph {name!r} is not open: the relay opens it when it starts, so use it only while the relay runs. "
    "Without a relay: async with engine.opened(): ..."
)


class Graphs:
    """The graphs of one engine, by name.

    Args:
        graphs: Compiled graphs, or functions that open them.
        config: The config with which threads are resumed, or a function that builds it.
        context: The runtime context with which threads are resumed, or a function that builds it.
        loop_thread: The operating-system thread with the event loop in which the graphs run, unless it is the caller's.

    Raises:
        SettingsError: a compiled graph cannot be resumed; see `GraphEngine`.
    """

    def __init__(
        self,
        graphs: Mapping[str, GraphSource],
        config: RunnableConfig | Callable[[str, str], RunnableConfig] | None,
        context: Any,
        loop_thread: GraphThread | None,
    ) -> None:
        self._sources = dict(graphs)
        self._graphs: dict[str, Graph] = {}
        self._read_graphs: dict[str, Graph] = {}
        self._config = config if callable(config) else partial(_thread_config, config or {})
        self._context = context
        for name, source in graphs.items():
            if not opens_graph(source):
                self._add(name, cast("Graph", source))
                if loop_thread is not None:
                    self._check_loop(name, loop_thread.loop if loop_thread.started else None)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open the graphs that are given as functions, and close them at the end of the block.

        It must run on the event loop of the graphs.

        Raises:
            SettingsError: a function fails, or a graph cannot be resumed; see `GraphEngine`.
        """
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            for name, source in self._sources.items():
                if opens_graph(source):
                    self._add(name, await stack.enter_async_context(opened(name, source)))
                    stack.callback(self._remove, name)
                self._check_loop(name, loop)
            yield

    def _add(self, name: str, graph: Graph) -> None:
        """Take a compiled graph after it was checked.

        Raises:
            SettingsError: it cannot be resumed.
        """
        if not hasattr(graph, "checkpointer"):  # usually an uncompiled StateGraph
            raise SettingsError(f"graph {name!r} is a {type(graph).__name__} and not a compiled graph: compile it")
        if not isinstance(graph.checkpointer, BaseCheckpointSaver):
            raise SettingsError(
                f"graph {name!r} has no checkpointer, so no thread of it can be resumed: compile it with one"
            )
        if self._context is NOT_GIVEN and (schema := getattr(graph, "context_schema", None)) is not None:
            raise SettingsError(
                f"graph {name!r} has the context_schema {getattr(schema, '__name__', schema)}, and LangGraph does "
                "not store the context of the run that asked: give GraphEngine(context=...) a context, or a "
                "function of graph name and thread id (on the command line --graph-context), or context=None for "
                "none"
            )
        self._graphs[name], self._read_graphs[name] = graph, without_remote_states(graph)

    def _remove(self, name: str) -> None:
        del self._graphs[name], self._read_graphs[name]

    def _check_loop(self, name: str, loop: asyncio.AbstractEventLoop | None) -> None:
        """Refuse a checkpointer that belongs to another event loop. Checkpointers with async methods belong to one.

        Args:
            name: The name of an open graph.
            loop: The event loop that runs the graph. None: it does not exist yet.

        Raises:
            SettingsError: the checkpointer belongs to another event loop.
        """
        saver = cast("BaseCheckpointSaver[Any]", self._graphs[name].checkpointer)
        its_own = loop_of(saver)
        if its_own is not None and its_own is not loop:
            raise SettingsError(
                f"the {type(saver).__name__} of graph {name!r} belongs to another event loop than the one that runs "
                "the graph: give GraphEngine, in place of the graph, an async context manager that opens the "
                "checkpointer and compiles the graph. The engine enters it on the right event loop"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def __str__(self) -> str:
        return ", ".join(self._sources)

    def graph(self, name: str) -> Graph:
        """Return the graph with this name.

        Raises:
            SettingsError: there is none, or it is not open.
        """
        if (graph := self._graphs.get(name)) is not None:
            return graph
        if name not in self._sources:
            raise SettingsError(f"this engine has no graph {name!r}; it has: {self}")
        raise SettingsError(_NOT_OPEN.format(name=name))

    def thread(self, name: str, thread_id: str, *, graph_id: str | None = None) -> StoredThread:
        """Return a thread as this graph sees it, run with this graph id in its config if there is one."""
        named = {} if graph_id is None else {GRAPH: graph_id}
        graph = self.graph(name)
        return StoredThread(name, graph, self._read_graphs[name], _with(self._config(name, thread_id), named))

    def threads_of(self, route: Route) -> list[StoredThread]:
        """Return the thread of a route as seen by each graph to which it may belong.

        Raises:
            TargetNotReady: the route names a graph that this relay does not have, or a graph is not open, so that
                the thread may be one of it.
        """
        name, thread_id = route.target.get(GRAPH), route.target["thread_id"]
        if name is not None and name not in self:
            raise TargetNotReady(f"this relay has no graph {name!r}; it has: {self}")
        if closed := [each for each in self if each not in self._graphs and name in {None, each}]:
            raise TargetNotReady(_NOT_OPEN.format(name=closed[0]))
        if name is None:
            return [self.thread(each, thread_id) for each in self]
        return [self.thread(name, thread_id, graph_id=name)]  # the next question must carry the same graph id

    async def context(self, name: str, thread_id: str) -> Any:
        """Return the runtime context of a run."""
        context = None if self._context is NOT_GIVEN else self._context
        made = context(name, thread_id) if callable(context) else context
        return await made if inspect.isawaitable(made) else made


def _thread_config(fixed: RunnableConfig, _: str, thread_id: str) -> RunnableConfig:
    return _with(fixed, {"thread_id": thread_id})


def _with(config: RunnableConfig, named: Mapping[str, str]) -> RunnableConfig:
    """Return the config with these configurable values."""
    return {**config, "configurable": {**config.get("configurable", {}), **named}}
