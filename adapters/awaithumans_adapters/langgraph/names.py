"""What both sides of a checkpoint agree on. It stands in checkpoints, so it does not change."""

import hashlib
import re
from typing import Any, cast

from pydantic import ValidationError

from awaithumans_core.outcome import Outcome

ENGINE = "langgraph"
"""Engine name of the routes to graphs in a relay's process."""
SERVER_ENGINE = "langgraph-server"
"""Engine name of the routes to threads of a LangGraph server."""
RESUMED_WITH = "awaithumans_key"
"""In the metadata of a server's run: the question whose answer the run was made to bring."""
PLACE = "checkpoint_ns"
"""In an interrupt, and in the note that its answer was taken: the checkpoint namespace in which it was raised."""
GRAPH = "graph_id"
"""Whose thread it is, in a thread's config and in its routes. LangGraph Server calls it so, too."""
OPEN_WAIT = "awaithumans_open_wait"
"""The LangGraph task inside a node that creates the human task."""
CONDITION = "awaithumans_when"
"""The LangGraph task inside a node that finds out whether a tool call needs a person."""
GROUP = "group"
"""In an interrupt, and in what a checkpoint records of a question: it was asked for a quorum, which may decide without
its answer."""
MARK = "awaithumans"
"""Present in every interrupt of ours; its value is the version of the form below."""


def interrupt_value(
    *, question: str, task_id: str, key: str, review_url: str, node: str, group: bool
) -> dict[str, Any]:
    """What an interrupt of ours shows to whoever looks at the thread."""
    shown = {"task": question, "task_id": task_id, "idempotency_key": key, "review_url": review_url}
    return {MARK: 1, **shown, PLACE: node, **({GROUP: True} if group else {})}


def place_key(thread_id: str, place: str) -> str:
    """What the keys of the questions asked at this place, a checkpoint namespace, begin with."""
    return f"{ENGINE}:{thread_id}:{place}:"


def place_in(key: str, thread_id: str) -> str | None:
    """The checkpoint namespace of the node that asks the question with this key; None if the caller chose the key."""
    begin = place_key(thread_id, "")[:-1]
    if not key.startswith(begin):
        return None
    found = re.fullmatch(r"(.+:[0-9a-f-]{36}):\d+(:reask:\d+)?", key.removeprefix(begin), re.DOTALL)
    return found[1] if found else None


def graph_in(key: str, thread_id: str) -> str | None:
    """The namespace of the graph whose node asks the question with this key; None if the key does not name it."""
    place = place_in(key, thread_id)
    return None if place is None else place.rpartition("|")[0]


def names_key(value: object, key: str) -> bool:
    """Whether an interrupt value, or a resume value, is about the question with this key."""
    return isinstance(value, dict) and cast("dict[object, object]", value).get("idempotency_key") == key


def answer_to(value: object, key: str) -> Outcome | None:
    """How the question with this key ended, if a resume value says so; anyone may resume a thread, with anything."""
    if not names_key(value, key):
        return None
    try:
        outcome = Outcome.model_validate(value)
    except ValidationError:
        return None
    return outcome if outcome.terminal else None


def answered_key(value: object) -> set[str]:
    """The key that a resume value names; empty if it names none."""
    key = cast("dict[object, object]", value).get("idempotency_key") if isinstance(value, dict) else None
    return {key} if isinstance(key, str) else set()


def is_ours(value: object) -> bool:
    """Whether an interrupt value is one of `interrupt_value`."""
    return isinstance(value, dict) and MARK in cast("dict[object, object]", value)


def note_namespace(thread_id: str, key: str) -> tuple[str, ...]:
    """Where in a server's store stands at which places of the thread the answer to this question was taken."""
    return ("awaithumans", "taken", thread_id, _short(key))


def note_name(place: str) -> str:
    """Name of the note of one place."""
    return _short(place)


def thread_mark(thread_id: str) -> str:
    """Names a thread in what its checkpoints keep. Copying a thread may replace its id there, and leaves this."""
    return _short(thread_id)[:8]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
