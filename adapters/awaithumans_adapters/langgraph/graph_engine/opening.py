"""Opens the graphs of an engine that are given as functions, each with the checkpointer it needs.

Law: a graph is opened on the event loop that runs it, because an async checkpointer belongs to the event loop on which
it was opened.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias, TypeGuard, cast

from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import Graph
from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import without_users

OpensGraph: TypeAlias = "Callable[[], Graph | Awaitable[Graph] | AbstractAsyncContextManager[Graph]]"
"""A function without arguments that returns a compiled graph. It may be async, or an async context manager."""

GraphSource: TypeAlias = "Graph | OpensGraph"
"""A compiled graph, or the function that opens it."""


def opens_graph(source: GraphSource) -> TypeGuard[OpensGraph]:
    """Whether this is a function that opens a graph, and not the graph itself."""
    return callable(source) and not hasattr(source, "checkpointer")


@asynccontextmanager
async def opened(name: str, source: OpensGraph) -> AsyncGenerator[Graph]:
    """Yield what the function opens. It is closed at the end of the block.

    Raises:
        SettingsError: the function fails.
    """
    async with AsyncExitStack() as stack:
        try:
            made: Any = source()
            if inspect.isawaitable(made):
                made = await made
            if isinstance(made, AbstractAsyncContextManager):
                made = await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", made))
        except Exception as failed:  # any error of the user's function
            called = getattr(source, "__name__", None) or type(source).__name__
            why = f"{type(failed).__name__}: {without_users(str(failed))}"
            raise SettingsError(
                f"graph {name!r}: {called}() fails ({why}): give a compiled graph, or a function without arguments "
                "that makes one. An async context manager can open the checkpointer"
            ) from failed
        yield made
