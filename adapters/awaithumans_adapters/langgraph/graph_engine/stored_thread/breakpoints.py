"""Detects whether a thread waits at a static breakpoint: `interrupt_before` or `interrupt_after` of a compiled graph.

Law: only the application takes a thread past a breakpoint. The stored checkpoint of a thread that is paused there looks
like that of a run that was cut off, so it is compared with the graph's breakpoints before a run is continued.
"""

from collections.abc import Collection, Sequence
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import StateSnapshot

from awaithumans_adapters.langgraph.internals import SEEN_AT_BREAKPOINT, breakpoint_nodes

ALL = "*"
"""Entry in a graph's lists of breakpoints that means every node."""


class Breakpoints:
    """The static breakpoints of a graph and of its subgraphs."""

    def __init__(self, graph: Any) -> None:
        self._graphs = {"": graph} | (dict(graph.get_subgraphs(recurse=True)) if _has_subgraphs(graph) else {})

    def __bool__(self) -> bool:
        return any(breakpoint_nodes(graph, when) for graph in self._graphs.values() for when in ("before", "after"))

    def may_hold(self, saved: CheckpointTuple, level: StateSnapshot) -> bool:
        """Whether no task of the step has begun, and something has changed since the last breakpoint was passed."""
        begun = any(task.result is not None or task.error or task.interrupts for task in level.tasks)
        return bool(level.tasks) and not begun and _changed_since_breakpoint(saved)

    def holds(self, saved: CheckpointTuple, level: StateSnapshot, ran_before: Sequence[str]) -> bool:
        """Whether the thread is paused at a breakpoint of this checkpoint.

        Args:
            saved: The checkpoint, for which `may_hold` is true.
            level: The same checkpoint as its graph shows it.
            ran_before: The nodes of the previous step.
        """
        graph = self._graphs.get(_graph_name(saved))
        return _stops(breakpoint_nodes(graph, "before"), [task.name for task in level.tasks]) or _stops(
            breakpoint_nodes(graph, "after"), ran_before
        )


def _has_subgraphs(graph: Any) -> bool:
    return callable(getattr(graph, "get_subgraphs", None))


def _stops(breakpoints: str | Collection[str], nodes: Sequence[str]) -> bool:
    return bool(nodes) if breakpoints == ALL else any(node in breakpoints for node in nodes)


def _graph_name(saved: CheckpointTuple) -> str:
    """Return the name of a checkpoint's graph in `get_subgraphs`: its namespace without the ids of tasks."""
    namespace: str = saved.config.get("configurable", {}).get("checkpoint_ns", "")
    return "|".join(part.partition(":")[0] for part in namespace.split("|") if not part.isdecimal())


def _changed_since_breakpoint(saved: CheckpointTuple) -> bool:
    seen: dict[str, Any] = saved.checkpoint["versions_seen"].get(SEEN_AT_BREAKPOINT, {})
    versions: dict[str, Any] = saved.checkpoint["channel_versions"]
    return any(name not in seen or version > seen[name] for name, version in versions.items())
