"""The position of a question in a graph, and the answers with which its node was resumed.

Law: a question keeps its position however often its node runs again from its start, on resume or by its retry policy.
LangGraph's own counter of a node's calls continues through retries and is not usable here. The counter in this module
starts at 0 in each attempt.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from threading import Lock, get_ident
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config

from awaithumans_adapters.langgraph.internals import (
    CHECKPOINT_MAP,
    CHECKPOINTER,
    Scratchpad,
    scratchpad,
    stores_checkpoints,
)
from awaithumans_adapters.langgraph.names import answer_to, key_prefix
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome


class Position(NamedTuple):
    """The position of one call in one visit to one node."""

    thread_id: str
    node: str
    """Checkpoint namespace of the node, which ends in the id of this visit."""
    number: int
    """Number of the question within the node, from 0."""
    asked_in: Mapping[str, str]
    """The checkpoint of each graph around the node, by namespace."""

    @property
    def key(self) -> str:
        """Permanent idempotency key of the question, made from its position."""
        return f"{key_prefix(self.thread_id, self.node)}{self.number}"


class _Attempt(NamedTuple):
    """One attempt of a node. LangGraph runs a node again from its start on resume and by its retry policy."""

    counter: object
    """LangGraph's counter of the attempt, which identifies it."""
    thread: int
    """Id of the thread that asks."""
    numbers: Iterator[int]
    """Yields the numbers of the attempt's questions."""
    passed_over: set[str]
    """Keys of the answers received by other questions. See the function `passed_over`."""


_attempts: WeakKeyDictionary[Callable[[bool], Any], list[_Attempt]] = WeakKeyDictionary()
"""The attempts of each run."""
_counting = Lock()  # sync nodes run in threads


def next_position() -> Position:
    """Return the position of the question that is about to be asked.

    Raises:
        SettingsError: another thread of the same node also asks. The order of the threads is random, so after a resume
            the answers could not be matched to their questions.
    """
    configurable = configured()
    number = next(_attempt(scratchpad(configurable)).numbers)
    return Position(str(configurable["thread_id"]), configurable["checkpoint_ns"], number, configurable[CHECKPOINT_MAP])


def answer_given(key: str) -> Outcome | None:
    """Return the outcome of the question if the node was resumed with it, otherwise None."""
    return next((outcome for value in scratchpad(configured()).resume if (outcome := answer_to(value, key))), None)


def is_resumed() -> bool:
    """Whether the running node was resumed with an answer."""
    return bool(scratchpad(configured()).resume)


def passed_over() -> set[str]:
    """Return the keys of the questions whose answers this attempt of the node received while it asked another question.

    LangGraph gives a node its answers one by one, in the order in which they arrived. Such an answer is not returned a
    second time, and another call of `interrupt()` would take the answer to a later interrupt.
    """
    return _attempt(scratchpad(configured())).passed_over


def configured() -> dict[str, Any]:
    """Return the `configurable` values that LangGraph has set for the running node."""
    return get_config().get("configurable", {})


def checkpointer() -> BaseCheckpointSaver[Any]:
    """Return the checkpointer of the thread in which the node runs."""
    return cast("BaseCheckpointSaver[Any]", configured()[CHECKPOINTER])


def is_stored() -> bool:
    """Whether the graph of the running node stores checkpoints. It does not if compiled with `checkpointer=False`."""
    return stores_checkpoints(configured())


def _attempt(memory: Scratchpad) -> _Attempt:
    counter = memory.interrupt_counter
    with _counting:
        attempts = _attempts.setdefault(memory.get_null_resume, [])
        for attempt in attempts:
            if attempt.counter is counter:
                if attempt.thread != get_ident():
                    raise SettingsError(_SEVERAL_THREADS)
                return attempt
        attempts.append(_Attempt(counter, get_ident(), itertools.count(), set()))
        return attempts[-1]


_SEVERAL_THREADS = (
    "several threads of one node ask at once, and their order is chance. Have an agent of create_agent call such "
    "tools, which gives each call a task of its own, or make them async, or ask in nodes beside each other (Send)"
)
