"""One thread of one graph, as its checkpointer stores it: reads its checkpoints and its state, and writes answers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.types import Durability, StateSnapshot

from awaithumans_adapters.langgraph.delivery.history import PAGE, namespaces, newest_first
from awaithumans_adapters.langgraph.graph_engine.stored_thread.answers import (
    StoredAnswers,
    Writes,
    end_failed_transaction,
)
from awaithumans_adapters.langgraph.graph_engine.stored_thread.checkpoint_cache import CheckpointCache


class Graph(Protocol):
    """The methods of a compiled graph that the engine uses.

    LangGraph's own class has type parameters that would be unknown here.
    """

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any] | bool | None:
        """The checkpointer, or a value that means there is none."""
        ...

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Return the state of a thread."""
        ...

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Return the state of a thread, for checkpointers with async methods."""
        ...

    def stream(
        self,
        command: Any,
        config: RunnableConfig,
        /,
        *,
        stream_mode: list[Any],
        subgraphs: bool,
        durability: Durability,
        context: Any = None,
    ) -> Iterator[Any]:
        """Run a thread as `invoke` does, and yield the stream parts."""
        ...

    def astream(
        self,
        command: Any,
        config: RunnableConfig,
        /,
        *,
        stream_mode: list[Any],
        subgraphs: bool,
        durability: Durability,
        context: Any = None,
    ) -> AsyncIterator[Any]:
        """Run a thread as `ainvoke` does, and yield the stream parts."""
        ...

    def invoke(self, command: Any, config: RunnableConfig, /, *, durability: Durability, context: Any = None) -> Any:
        """Run a thread to its end or its next interrupt."""
        ...

    async def ainvoke(
        self, command: Any, config: RunnableConfig, /, *, durability: Durability, context: Any = None
    ) -> Any:
        """Run a thread with async nodes to its end or its next interrupt."""
        ...


class StoredThread:
    """One thread of one graph, as its checkpointer stores it.

    A checkpointer without async methods (for instance SQLite's sync one) implies a graph of sync nodes. It is used in a
    worker thread.

    Args:
        name: The graph's name.
        graph: The compiled graph.
        read_graph: The graph with which the thread is read; see `internals.without_remote_states`.
        config: The config with which the thread is read and run.
    """

    def __init__(self, name: str, graph: Graph, read_graph: Graph, config: RunnableConfig) -> None:
        self.name = name
        self.graph = graph
        self.config = config
        self.saver_is_sync = False
        """Whether the checkpointer is known to have sync methods only."""
        self._read_graph = read_graph
        self._cache: CheckpointCache | None = None

    @property
    def id(self) -> str:
        """Id of the thread."""
        return str(self.config.get("configurable", {})["thread_id"])

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        """The graph's checkpointer."""
        saver = self.graph.checkpointer
        if not isinstance(saver, BaseCheckpointSaver):  # checked when the engine was built
            raise TypeError("the graph has no checkpointer")
        return saver

    # --- Cached reads -------------------------------------------------------------------------------------------------

    def end_cache(self, config: RunnableConfig, stored: StoredAnswers | None) -> RunnableConfig:
        """Return the config with which a run starts from the cached checkpoints, if there are any.

        Args:
            config: The config of the run.
            stored: Answers that are stored in advance of the run.
        """
        if self._cache is None:
            return config
        cache, self._cache = self._cache, None
        cache.end(stored)
        return cache.lent(config)

    def renew_cache(self) -> None:
        """Read the thread anew from now on, and cache these reads, so that nothing is read twice.

        The cache ends when the thread is run. The run then starts from the cached checkpoints.
        """
        if self._cache is None or self._cache.has_read:
            self._cache = CheckpointCache(self.saver)

    def drop_cache(self) -> None:
        """Read the thread anew from now on."""
        self._cache = None

    # --- Checkpoints --------------------------------------------------------------------------------------------------

    async def checkpoint(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint with its pending writes."""
        cache = self._cache
        if not self.saver_is_sync:
            try:
                return await (cache.aread if cache else self.saver.aget_tuple)(config)
            except NotImplementedError:
                self.saver_is_sync = True
        return await asyncio.to_thread(cache.read if cache else self.saver.get_tuple, config)

    async def at(self, graph: str, checkpoint_id: str | None = None) -> CheckpointTuple | None:
        """Return a checkpoint of the graph with this namespace. Without an id it is the latest."""
        where = {**self.config.get("configurable", {}), "checkpoint_ns": graph}
        if checkpoint_id is not None:
            where["checkpoint_id"] = checkpoint_id
        return await self.checkpoint({"configurable": where})

    async def latest(self) -> CheckpointTuple | None:
        """Return the checkpoint from which the thread continues."""
        return await self.checkpoint(self.config)

    async def exists(self) -> bool:
        """Whether the thread has a checkpoint."""
        return await self.at("") is not None

    def pages(
        self, graph: str | None, *, source: str | None = None, size: int = PAGE
    ) -> AsyncGenerator[list[CheckpointTuple]]:
        """Yield the checkpoints of a graph in pages, as `newest_first` does."""
        return newest_first(self.saver, self.id, graph, saver_is_sync=self.saver_is_sync, source=source, size=size)

    async def checkpoints(self) -> AsyncGenerator[CheckpointTuple]:
        """Yield the checkpoints of the thread, newest first, subgraphs included. The reader may stop early."""
        for graph in namespaces(self.saver, self.id):
            async for page in self.pages(graph):
                for saved in page:
                    yield saved

    async def current_step(self) -> AsyncGenerator[CheckpointTuple]:
        """Yield the latest checkpoint of the outermost graph, and all later ones of the graphs inside its tasks."""
        latest = await self.at("")
        if latest is None:
            return
        yield latest
        for graph in namespaces(self.saver, self.id):
            async for page in self.pages(graph):
                newer = [saved for saved in page if id_of(saved) > id_of(latest)]
                for saved in newer:
                    yield saved
                if len(newer) < len(page):
                    break

    async def write(self, config: RunnableConfig, writes: Writes, task_id: str) -> None:
        """Store writes of a task with a checkpoint."""
        if self.saver_is_sync:
            await asyncio.to_thread(self.saver.put_writes, config, writes, task_id)
            return
        try:
            await self.saver.aput_writes(config, writes, task_id)
        except Exception:
            await end_failed_transaction(self.saver)
            raise

    # --- State --------------------------------------------------------------------------------------------------------

    async def state(self) -> StateSnapshot:
        """Return the thread's values, the interrupts at which it waits and the nodes that run next."""
        cache = self._cache
        if cache is None:
            return await self._read_state(self.config, subgraphs=True)
        if cache.snapshot is None:
            cache.snapshot = await self._read_state(cache.lent(self.config), subgraphs=True)
        return cache.snapshot

    async def state_at(self, config: RunnableConfig) -> StateSnapshot:
        """Return the state at one of the thread's checkpoints, without subgraphs."""
        return await self._read_state(config, subgraphs=False)

    async def levels(self) -> Sequence[StateSnapshot]:
        """Return the thread's current state and that of each active subgraph."""
        snapshot, cache = await self.state(), self._cache
        if cache is None:
            return list(_levels(snapshot))
        if not cache.levels:
            cache.levels = list(_levels(snapshot))
        return cache.levels

    async def _read_state(self, config: RunnableConfig, *, subgraphs: bool) -> StateSnapshot:
        if not self.saver_is_sync:
            try:
                return await self._read_graph.aget_state(config, subgraphs=subgraphs)
            except NotImplementedError:
                self.saver_is_sync = True
        return await asyncio.to_thread(self._read_graph.get_state, config, subgraphs=subgraphs)


def id_of(saved: CheckpointTuple) -> str:
    """Return the id of a checkpoint. Later checkpoints have greater ids."""
    return str(saved.config.get("configurable", {})["checkpoint_id"])


def namespace_of(saved: CheckpointTuple) -> str:
    """Return the checkpoint namespace of a checkpoint."""
    return str(saved.config.get("configurable", {}).get("checkpoint_ns", ""))


def _levels(snapshot: StateSnapshot) -> Iterator[StateSnapshot]:
    yield snapshot
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _levels(task.state)
