"""Refuses calls of `await_human` from which LangGraph cannot interrupt the node, before a task is created.

Law: no person is asked a question whose interrupt cannot reach LangGraph.
"""

import asyncio
from typing import Any

from awaithumans_adapters.langgraph.internals import call_options
from awaithumans_adapters.langgraph.node.position import configured
from awaithumans_core.errors import SettingsError
from awaithumans_core.group_context import current_group
from awaithumans_core.relay_loops import refuse_to_block


def check_async_call() -> None:
    """Raise unless this coroutine runs in an async node and its interrupt can propagate out of that node.

    Raises:
        SettingsError: the run is a sync one, or this runs on another event loop, or in a task group.
    """
    bound = call_options(configured())
    if bound is not None and bound.get("loop") is not asyncio.get_running_loop():
        raise SettingsError(
            "await_human is called outside of the event loop of an async run (graph.ainvoke), for instance with "
            "asyncio.run in a sync node: call await_human_sync in sync nodes"
        )
    if _in_task_group():
        raise SettingsError(
            "await_human is called in a task of a TaskGroup, which wraps the interrupt of LangGraph in an "
            "ExceptionGroup, so that the node fails: use asyncio.gather(await_human(...), await_human(...))"
        )


def check_sync_call() -> None:
    """Raise if this call would block the event loop of an async run, or of a relay in this process.

    Raises:
        SettingsError: the calling node is async, or a relay runs on the event loop of this thread.
    """
    bound = call_options(configured())
    if bound is not None and "loop" in bound and _current_task() is not None:
        raise SettingsError("await_human_sync is called in an async node: call `await await_human(...)` there")
    refuse_to_block()


def check_group() -> None:
    """Raise if the question is asked by `escalate` of awaithumans_core.

    Its steps need a timer, and no timer runs while a thread waits, so the second step would never begin.

    Raises:
        SettingsError: `escalate` of awaithumans_core asks the question.
    """
    group = current_group()
    if group is not None and group.kind == "escalate":
        raise SettingsError(
            "escalate of awaithumans_core cannot wait for its steps in a LangGraph node: import escalate from "
            "awaithumans_adapters.langgraph, which takes the same arguments"
        )


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _in_task_group() -> bool:
    """Whether the current task belongs to a task group of asyncio or anyio.

    Both kinds of group add a callback to their tasks, by which they are recognized.
    """
    callbacks = getattr(_current_task(), "_callbacks", None) or ()
    return any(getattr(callback, "__qualname__", "").startswith("TaskGroup.") for callback, _ in callbacks)
