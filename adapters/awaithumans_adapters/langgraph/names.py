"""Names and formats that nodes and engines share. They are stored in checkpoints and therefore never change."""

import hashlib
import re
from typing import Any, cast

from pydantic import ValidationError

from awaithumans_core.outcome import Outcome

ENGINE = "langgraph"
"""Engine name in the routes to graphs in a relay's process."""
SERVER_ENGINE = "langgraph-server"
"""Engine name in the routes to threads of a LangGraph server."""
RESUMED_WITH = "awaithumans_key"
"""Metadata key of a server's run: the key of the question whose answer the run brings."""
NODE = "checkpoint_ns"
"""Key in an interrupt and in the receipt of its answer: the checkpoint namespace in which the interrupt was raised."""
GRAPH = "graph_id"
"""Key of the graph's name in a thread's config and in its routes. LangGraph Server uses the same name."""
OPEN_WAIT = "awaithumans_open_wait"
"""Name of the LangGraph task inside a node that creates the human task."""
CONDITION = "awaithumans_when"
"""Name of the LangGraph task inside a node that decides whether a tool call needs a person."""
GROUP = "group"
"""Key in an interrupt, and in a checkpoint's record of a question: it was asked for a quorum, which may decide without
its answer."""
MARK = "awaithumans"
"""Key in every interrupt of this package. Its value is the version of the format of `interrupt_value`."""


def interrupt_value(
    *, question: str, task_id: str, key: str, review_url: str, node: str, group: bool
) -> dict[str, Any]:
    """Return the value of an interrupt of this package, which every reader of the thread can see."""
    shown = {"task": question, "task_id": task_id, "idempotency_key": key, "review_url": review_url}
    return {MARK: 1, **shown, NODE: node, **({GROUP: True} if group else {})}


def key_prefix(thread_id: str, node: str) -> str:
    """Return the prefix of the keys of the questions that the node with this checkpoint namespace asks."""
    return f"{ENGINE}:{thread_id}:{node}:"


def node_in(key: str, thread_id: str) -> str | None:
    """Return the checkpoint namespace of the node that asks the question, or None if the caller chose the key."""
    begin = key_prefix(thread_id, "")[:-1]
    if not key.startswith(begin):
        return None
    found = re.fullmatch(r"(.+:[0-9a-f-]{36}):\d+(:reask:\d+)?", key.removeprefix(begin), re.DOTALL)
    return found[1] if found else None


def graph_in(key: str, thread_id: str) -> str | None:
    """Return the namespace of the graph whose node asks the question, or None if the key does not name it."""
    node = node_in(key, thread_id)
    return None if node is None else node.rpartition("|")[0]


def names_key(value: object, key: str) -> bool:
    """Whether an interrupt value, or a resume value, is about the question with this key."""
    return isinstance(value, dict) and cast("dict[object, object]", value).get("idempotency_key") == key


def answer_to(value: object, key: str) -> Outcome | None:
    """Return the outcome of the question with this key if a resume value contains it, else None.

    None also if that outcome is not terminal. A thread may be resumed by other code with any value, so the value is
    validated.
    """
    if not names_key(value, key):
        return None
    try:
        outcome = Outcome.model_validate(value)
    except ValidationError:
        return None
    return outcome if outcome.terminal else None


def answered_key(value: object) -> set[str]:
    """Return the key that a resume value names, as a set that is empty if it names none."""
    key = cast("dict[object, object]", value).get("idempotency_key") if isinstance(value, dict) else None
    return {key} if isinstance(key, str) else set()


def is_ours(value: object) -> bool:
    """Whether an interrupt value was made by `interrupt_value`."""
    return isinstance(value, dict) and MARK in cast("dict[object, object]", value)


def receipt_namespace(thread_id: str, key: str) -> tuple[str, ...]:
    """Return the namespace in a server's store for the receipts of this question's answer.

    Each receipt names a node that has taken the answer.
    """
    return ("awaithumans", "taken", thread_id, _short(key))


def receipt_name(node: str) -> str:
    """Return the name of the receipt for one node."""
    return _short(node)


def thread_mark(thread_id: str) -> str:
    """Return a mark of a thread for its checkpoints.

    A copy of the thread may contain another thread id, but keeps this mark.
    """
    return _short(thread_id)[:8]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
