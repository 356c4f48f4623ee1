"""Finds the checkpoints in which a question was asked, without reading the whole history of its thread.

A node names its checkpoint in the route (`asked_at`), so one or two reads suffice. Routes of earlier releases do not
have it. For them the history is paged backwards, a few checkpoints at a time, and a search that has used up its time
continues at the next check.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from awaithumans_adapters.langgraph.internals import threads_in_memory
from awaithumans_adapters.langgraph.names import graph_in

PAGE = 20
"""Checkpoints read in one step. The event loop runs between two steps."""
SEARCH_SECONDS = 3.0
"""Time for the search of one orphan check. The relay waits 10 seconds, and the check also does other work."""
MAX_SEARCHES = 1000
"""Searches that one engine remembers."""

Matches = Callable[[CheckpointTuple, str], Awaitable[bool]]
"""Predicate: whether the question with this key was asked or answered in a checkpoint."""


class SearchUnfinishedError(Exception):
    """The time limit of a search is reached. The next search for the same question continues where this one stopped."""


@dataclass(eq=False)
class Search:
    """Progress of the search for one question in a thread's history, and the checkpoints found."""

    found: list[RunnableConfig] = field(default_factory=list[RunnableConfig])
    before: dict[str | None, RunnableConfig] = field(default_factory=dict[str | None, RunnableConfig])
    """The oldest checkpoint searched so far, by namespace, or by None for all namespaces."""
    complete: bool = False


class Searches:
    """The unfinished searches of one engine, at most `MAX_SEARCHES` of them."""

    def __init__(self) -> None:
        self._searches: OrderedDict[tuple[str, str], Search] = OrderedDict()

    def of(self, graph: str, digest: str) -> Search:
        """Return the unfinished search for the question of a route in the checkpointer of a graph, or a new one."""
        search = self._searches.get((graph, digest))
        if search is None or search.complete:
            search = self._searches[graph, digest] = Search()
        self._searches.move_to_end((graph, digest))
        if len(self._searches) > MAX_SEARCHES:
            self._searches.popitem(last=False)
        return search


def asked_at(checkpoint_map: Mapping[str, str]) -> dict[str, str]:
    """Return the checkpoint of the graph whose node asks and that of the outermost graph, by namespace.

    Args:
        checkpoint_map: The checkpoint of each graph around the node, as LangGraph configures it for the node.
    """
    if not checkpoint_map:
        return {}
    innermost = checkpoint_map[max(checkpoint_map, key=len)]
    # A call inside a node adds the node itself, with the checkpoint of its graph.
    graph = min((graph for graph, at in checkpoint_map.items() if at == innermost), key=len)
    return {name: checkpoint_map[name] for name in ("", graph) if name in checkpoint_map}


def named(asked_in: Mapping[str, str], key: str, thread_id: str) -> list[tuple[str, str]]:
    """Return namespace and id of the checkpoints that a route names, innermost first.

    If the key names the position of the question, the innermost checkpoint alone holds the question and its answer. A
    key that the application chose may be asked by several subgraphs of one step, and the outermost checkpoint shows
    them all.
    """
    graphs = sorted(asked_in, key=len, reverse=True)
    wanted = graphs[:1] if graph_in(key, thread_id) is not None else graphs
    return [(graph, asked_in[graph]) for graph in wanted]


async def search(
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    key: str,
    so_far: Search,
    matches: Matches,
    *,
    saver_is_sync: bool,
    seconds: float | None = None,
) -> list[RunnableConfig]:
    """Page backwards through the history for the checkpoints in which a question was asked or answered, newest first.

    Args:
        saver: The checkpointer.
        thread_id: The thread.
        key: The question's idempotency key. If it names the position of the question, the search ends with the first
            match.
        so_far: Where the search continues. It is updated as the search proceeds.
        matches: Whether the question was asked or answered in a checkpoint.
        saver_is_sync: Whether the checkpointer has sync methods only.
        seconds: Time limit. None: search to the beginning of the history.

    Raises:
        SearchUnfinishedError: the time limit is reached.
    """
    until = None if seconds is None else time.monotonic() + seconds
    graph = graph_in(key, thread_id)
    for each in namespaces(saver, thread_id) if graph is None else [graph]:
        pages = newest_first(saver, thread_id, each, before=so_far.before.get(each), saver_is_sync=saver_is_sync)
        async for page in pages:
            if so_far.complete:
                break
            so_far.found += [saved.config for saved in page if await matches(saved, key)]
            so_far.before[each] = page[-1].config
            so_far.complete = graph is not None and bool(so_far.found)
            if until is not None and time.monotonic() >= until and not so_far.complete:
                raise SearchUnfinishedError(f"thread {thread_id!r} has a long history; the search continues")
    so_far.complete = True
    return so_far.found


async def newest_first(
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    graph: str | None = None,
    *,
    before: RunnableConfig | None = None,
    saver_is_sync: bool,
    source: str | None = None,
    size: int = PAGE,
) -> AsyncGenerator[list[CheckpointTuple]]:
    """Yield the checkpoints of a thread in pages, newest first. A page is never empty.

    Args:
        saver: The checkpointer.
        thread_id: The thread.
        graph: A namespace. None: all namespaces.
        before: Where to continue: only checkpoints older than this one.
        saver_is_sync: Whether the checkpointer has sync methods only.
        source: Only checkpoints with this source in their metadata.
        size: Checkpoints per page.
    """
    which = {"source": source} if source else None
    where: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    if graph is not None:
        where["configurable"]["checkpoint_ns"] = graph
    while True:
        if saver_is_sync:
            page = await asyncio.to_thread(_listed, saver, where, which, before, size)
        else:
            page = [saved async for saved in saver.alist(where, filter=which, before=before, limit=size)]
        if page:
            yield page
        if len(page) < size:
            return
        before = page[-1].config
        await asyncio.sleep(0)


def _listed(
    saver: BaseCheckpointSaver[Any],
    where: RunnableConfig,
    which: dict[str, Any] | None,
    before: RunnableConfig | None,
    limit: int,
) -> list[CheckpointTuple]:
    return list(saver.list(where, filter=which, before=before, limit=limit))


def namespaces(saver: BaseCheckpointSaver[Any], thread_id: str) -> list[str] | list[None]:
    """Return the namespaces to page through one after the other; None means all namespaces at once.

    `InMemorySaver` lists checkpoints by namespace, all other checkpointers by age.
    """
    return list(threads_in_memory(saver).get(thread_id, ())) if isinstance(saver, InMemorySaver) else [None]
