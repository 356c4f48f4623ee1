"""The compiled graphs of an engine: checks them, and returns their threads."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import GraphThread
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import Graph, StoredThread
from awaithumans_adapters.langgraph.internals import loop_of, without_remote_states
from awaithumans_adapters.langgraph.names import GRAPH
from awaithumans_core.engine import TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.route import Route

NOT_GIVEN = object()
"""Default of `context`. It differs from None, with which an application states that its graphs have no context."""


class Graphs:
    """The compiled graphs of one engine, by name.

    Args:
        graphs: The graphs.
        config: The config with which threads are resumed, or a function that builds it.
        context: The runtime context with which threads are resumed, or a function that builds it.
        loop_thread: The operating-system thread with the event loop in which the graphs run, unless it is the caller's.

    Raises:
        SettingsError: a graph cannot be resumed; see `GraphEngine`.
    """

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        config: RunnableConfig | Callable[[str, str], RunnableConfig] | None,
        context: Any,
        loop_thread: GraphThread | None,
    ) -> None:
        for name, graph in graphs.items():
            if not hasattr(graph, "checkpointer"):  # usually an uncompiled StateGraph
                raise SettingsError(f"graph {name!r} is a {type(graph).__name__} and not a compiled graph: compile it")
            if not isinstance(graph.checkpointer, BaseCheckpointSaver):
                raise SettingsError(f"graph {name!r} has no checkpointer, so no thread of it can be resumed")
            if loop_thread is not None:
                _check_loop(name, graph.checkpointer, loop_thread)
            if context is NOT_GIVEN and (schema := getattr(graph, "context_schema", None)) is not None:
                raise SettingsError(
                    f"graph {name!r} has the context_schema {getattr(schema, '__name__', schema)}, and LangGraph does "
                    "not store the context of the run that asked: give GraphEngine(context=...) a context, or a "
                    "function of graph name and thread id (on the command line --graph-context), or context=None for "
                    "none"
                )
        self._graphs = dict(graphs)
        self._read_graphs = {name: without_remote_states(graph) for name, graph in graphs.items()}
        self._config = config if callable(config) else partial(_thread_config, config or {})
        self._context = None if context is NOT_GIVEN else context

    def __iter__(self) -> Iterator[str]:
        return iter(self._graphs)

    def __contains__(self, name: str) -> bool:
        return name in self._graphs

    def __str__(self) -> str:
        return ", ".join(self._graphs)

    def graph(self, name: str) -> Graph:
        """Return the graph with this name."""
        return self._graphs[name]

    def thread(self, name: str, thread_id: str, *, graph_id: str | None = None) -> StoredThread:
        """Return a thread as this graph sees it, run with this graph id in its config if there is one."""
        named = {} if graph_id is None else {GRAPH: graph_id}
        return StoredThread(
            name, self._graphs[name], self._read_graphs[name], _with(self._config(name, thread_id), named)
        )

    def threads_of(self, route: Route) -> list[StoredThread]:
        """Return the thread of a route as seen by each graph to which it may belong.

        Raises:
            TargetNotReady: the route names a graph that this relay does not have.
        """
        name, thread_id = route.target.get(GRAPH), route.target["thread_id"]
        if name is None:
            return [self.thread(each, thread_id) for each in self._graphs]
        if name not in self._graphs:
            raise TargetNotReady(f"this relay has no graph {name!r}; it has: {self}")
        return [self.thread(name, thread_id, graph_id=name)]  # the next question must carry the same graph id

    async def context(self, name: str, thread_id: str) -> Any:
        """Return the runtime context of a run."""
        made = self._context(name, thread_id) if callable(self._context) else self._context
        return await made if inspect.isawaitable(made) else made


def _check_loop(name: str, saver: BaseCheckpointSaver[Any], loop_thread: GraphThread) -> None:
    """Refuse a checkpointer that belongs to another event loop. Checkpointers with async methods belong to one.

    Raises:
        SettingsError: the checkpointer belongs to another event loop than that of `loop_thread`.
    """
    loop = loop_of(saver)
    if loop is not None and loop is not loop_thread.loop:
        raise SettingsError(
            f"the {type(saver).__name__} of graph {name!r} belongs to another event loop than that of the thread: open "
            "it, and compile the graph, in an async context manager, and enter that with thread.enter_async_context"
        )


def _thread_config(fixed: RunnableConfig, _: str, thread_id: str) -> RunnableConfig:
    return _with(fixed, {"thread_id": thread_id})


def _with(config: RunnableConfig, named: Mapping[str, str]) -> RunnableConfig:
    """Return the config with these configurable values."""
    return {**config, "configurable": {**config.get("configurable", {}), **named}}
