"""All private names of LangGraph that this package reads or writes.

Law: no other module uses them. `tests/unit/test_langgraph_internals.py` has one test for each, named after it, which
fails when an installed release of LangGraph has renamed it. There is no public way to the same information.

The functions read what LangGraph configures for the running node, or what a graph or a checkpointer stores.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Protocol, cast
from weakref import ref

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Interrupt, PregelTask, StateSnapshot

# --- Names in the config of a node or of a run ------------------------------------------------------------------------

CALL = "__pregel_call"
"""Config key of the call that starts a LangGraph task inside the running node."""
CHECKPOINTER = "__pregel_checkpointer"
"""Config key of the running graph's checkpointer, which it lends to its subgraphs."""
SCRATCHPAD = "__pregel_scratchpad"
"""Config key of a node's memory for one run."""
STRICT_RESUME = "__pregel_strict_resume"
"""Config key, from LangGraph 1.2.20: a resume that answers no waiting interrupt raises."""
NODE_ERROR = "__pregel_node_error"
"""Config key under which LangGraph passes the failure of a node to its error handler."""
CHECKPOINT_MAP = "checkpoint_map"
"""Config key of the checkpoints of the graphs around the node, by namespace."""

SERVER_VERSION = "langgraph_api_version"
"""Metadata key that only runs of a LangGraph server have."""
SERVER_USER = "langgraph_auth_user_id"
"""Config key of the user of a run, if a LangGraph server authenticates users."""
NODE_NAMESPACE = "langgraph_checkpoint_ns"
"""Metadata key of a node's checkpoint namespace.

A `RemoteGraph` passes the metadata of the node that calls it to the run that it starts.
"""

CONTEXT_GIVEN = "__context_provided__"
"""Config key in the record of a server's run.

A server stores context and configurable values under one name. This mark is present if it was context.
"""
TRACING = {"__langsmith_project__": "project_name", "__langsmith_example_id__": "example_id"}
"""Config keys in the record of a server's run -> names in the option `langsmith_tracing`."""

# --- Names in checkpoints ---------------------------------------------------------------------------------------------

INTERRUPT = "__interrupt__"
"""Channel in which a checkpoint stores the interrupts of a task.

Also the key of the interrupts in the result of a run.
"""
RESUME = "__resume__"
"""Channel in which a checkpoint stores the answers that a task was resumed with."""
ERROR = "__error__"
"""Channel in which a checkpoint stores the failure of a task."""
ERROR_HANDLED = "__error_source_node__"
"""Channel in which a checkpoint stores that an error handler takes over from a failed task."""
RETURN = "__return__"
"""Channel in which a checkpoint stores the result of a LangGraph task inside a node."""
SCHEDULED = "__scheduled__"
"""Channel of a task that is scheduled in another process."""
SEEN_AT_BREAKPOINT = "__interrupt__"
"""Name under which a checkpoint stores the channel versions that the last breakpoint has seen."""
PARENTS = "parents"
"""Metadata key of a checkpoint: the checkpoints of the graphs around its graph, by namespace."""


# --- What LangGraph configures for a node -----------------------------------------------------------------------------


class Scratchpad(Protocol):
    """A node's memory for one run."""

    @property
    def resume(self) -> list[Any]:
        """The answers that the node was resumed with."""
        ...

    @property
    def interrupt_counter(self) -> Callable[[], int]:
        """Counter of interrupts, a different object in each attempt."""
        ...

    @property
    def get_null_resume(self) -> Callable[[bool], Any]:
        """Function that is the same object in each attempt of a run, and in no other run."""
        ...


def scratchpad(configurable: Mapping[str, Any]) -> Scratchpad:
    """Return the memory of the node with this config."""
    return cast("Scratchpad", configurable[SCRATCHPAD])


def call_options(configurable: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the keyword arguments bound to the call that starts a node's tasks, or None if there is no such call.

    `loop` is the event loop of an async run, and missing in a sync one. `schedule_task` is a method of the run.
    """
    call = cast("partial[Any] | None", configurable.get(CALL))
    return None if call is None else call.keywords


def stores_checkpoints(configurable: Mapping[str, Any]) -> bool:
    """Whether the graph of a node stores checkpoints. It does not if it was compiled with `checkpointer=False`.

    If a release of LangGraph keeps the graph's loop elsewhere, the graph counts as one that stores them.
    """
    return getattr(graph_loop(configurable), "checkpointer", True) is not None


def graph_loop(configurable: Mapping[str, Any]) -> Any:
    """Return the loop of a node's graph, with the `config` the graph was called with, or None if it is not found."""
    schedule = getattr(configurable.get(CALL), "keywords", {}).get("schedule_task")
    return getattr(schedule, "__self__", None)


def run_metadata(configurable: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata that the run of a node was started with. The metadata of the node replaces some of them.

    They are read from the outermost graph of the run. They are empty if a release of LangGraph keeps the loops
    elsewhere.
    """
    outermost = loop = graph_loop(configurable)
    while loop is not None:
        outermost, loop = loop, graph_loop(loop.config.get("configurable", {}))
    return {} if getattr(outermost, "is_nested", True) else outermost.config.get("metadata", {})


def node_of(call: Any) -> Any:
    """Return the node for which a call starts tasks: a dataclass with a `config`.

    None if the call is of another form.
    """
    held: Any = next(iter(call.args), None) if call.__class__ is partial else None
    node: Any = held() if held.__class__ is ref else None
    return node if is_dataclass(node) and isinstance(getattr(node, "config", None), dict) else None


def calling_for(call: Any, node: Any) -> Any:
    """Return a copy of the call for another node. The copy holds the node by a weak reference."""
    return partial(call.func, ref(node), *call.args[1:], **call.keywords)


# --- What graphs, checkpoints and checkpointers keep ------------------------------------------------------------------


def breakpoint_nodes(graph: Any, when: str) -> str | Collection[str]:
    """Return the nodes before or after which a graph stops, or "*" for all.

    Args:
        graph: A compiled graph, or None.
        when: "before" or "after".
    """
    nodes: str | Collection[str] | None = getattr(graph, f"interrupt_{when}_nodes", None)
    return nodes or ()


def bound_config(graph: Any) -> Mapping[str, Any]:
    """Return the config that `with_config` has bound to a graph."""
    return cast("Mapping[str, Any]", getattr(graph, "config", None) or {})


def node_tags(graph: Any) -> dict[str, Collection[str]]:
    """Return the tags of the nodes of a graph, by node name."""
    nodes: Mapping[str, Any] = getattr(graph, "nodes", {})
    return {name: node.tags or () for name, node in nodes.items()}


def without_remote_states(graph: Any, around: frozenset[int] = frozenset()) -> Any:
    """The graph, to read threads with, without the states of remote graphs (`RemoteGraph`) in its nodes.

    LangGraph would ask the server of each one that belongs to the current step for a checkpoint namespace of the
    calling graph, and fail. A function that refers to a remote graph counts as one.

    Args:
        graph: A compiled graph, or a graph in one of its nodes.
        around: The graphs around it, by `id`.

    Returns:
        The graph itself if it has no remote graphs, and otherwise a copy.
    """
    if id(graph) in around:  # a function in one of its nodes refers to it
        return graph
    own: Mapping[str, Any] | None = getattr(graph, "nodes", None)
    if own is None:
        return NoState()
    inside, nodes = around | {id(graph)}, dict[str, Any]()
    for name, node in own.items():
        subgraphs = [without_remote_states(each, inside) for each in node.subgraphs]
        if any(new is not old for new, old in zip(subgraphs, node.subgraphs, strict=True)):
            nodes[name] = copy(node)
            nodes[name].subgraphs = subgraphs
    if not nodes:
        return graph
    view: Any = copy(graph)
    view.nodes = {**own, **nodes}
    return view


class NoState:
    """Takes the place of a remote graph: a graph that has no checkpoints."""

    def get_state(self, config: RunnableConfig, **_: Any) -> StateSnapshot:
        """An empty state."""
        return StateSnapshot({}, (), config, None, None, None, (), ())

    async def aget_state(self, config: RunnableConfig, **_: Any) -> StateSnapshot:
        """An empty state."""
        return self.get_state(config)


def interrupt_id_at(namespace: str) -> str:
    """Return the id of the interrupt that is raised at a checkpoint namespace.

    After the first interrupt of a task, a number follows the namespace.
    """
    return Interrupt.from_ns(None, namespace).id


def parents_of(saved: CheckpointTuple) -> Mapping[str, str]:
    """Return the checkpoints of the graphs around the graph of a checkpoint, by namespace."""
    return cast("Mapping[str, str]", saved.metadata.get(PARENTS, {}))


def was_cancelled(task: PregelTask) -> bool:
    """Whether a task was cut off with its run. LangGraph stores that like a failure, by its `repr`."""
    return str(task.error).startswith("CancelledError(")


def loop_of(saver: BaseCheckpointSaver[Any]) -> asyncio.AbstractEventLoop | None:
    """Return the event loop to which a checkpointer belongs, or None if it can be used on any loop."""
    loop = getattr(saver, "loop", None)
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None


def connection_of(saver: object) -> tuple[Any, asyncio.Lock] | None:
    """Return the connection of an `AsyncSqliteSaver` and its lock, or None for other checkpointers.

    Raises:
        ValueError: the connection is closed.
    """
    connection: Any = getattr(saver, "conn", None)
    lock: Any = getattr(saver, "lock", None)
    return (connection, lock) if isinstance(lock, asyncio.Lock) and hasattr(connection, "in_transaction") else None


def threads_in_memory(saver: InMemorySaver) -> Mapping[str, Mapping[str, Any]]:
    """Return what `InMemorySaver` stores, by thread and then by namespace, the oldest thread first."""
    return saver.storage
