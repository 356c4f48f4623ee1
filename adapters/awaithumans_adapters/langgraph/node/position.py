"""Where a question stands in a graph, and what the node that asks it has been given.

Law: a question keeps its place however often its node runs again, from its start, on resume or by its retry policy.
LangGraph's own count of the calls a node makes runs on through retries, so it does not serve; ours begins anew with
each attempt.
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
from awaithumans_adapters.langgraph.names import answer_to, place_key
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome


class Place(NamedTuple):
    """One call in one visit to one node."""

    thread_id: str
    node: str
    """Its checkpoint namespace, which ends in the id of this visit."""
    number: int
    """Which of the node's questions it is, from 0."""
    asked_in: Mapping[str, str]
    """The checkpoint of each graph around the node, by namespace."""

    @property
    def key(self) -> str:
        """Names the question for good."""
        return f"{place_key(self.thread_id, self.node)}{self.number}"


class _Attempt(NamedTuple):
    """One attempt of a node: LangGraph runs it again from its start on resume and by its retry policy."""

    counter: object
    """LangGraph's counter of the attempt, which identifies it."""
    thread: int
    """The thread that asks."""
    numbers: Iterator[int]
    """Numbers its questions."""
    passed_over: set[str]
    """See `passed_over`."""


_attempts: WeakKeyDictionary[Callable[[bool], Any], list[_Attempt]] = WeakKeyDictionary()
"""Of each run."""
_counting = Lock()  # sync nodes run in threads


def next_place() -> Place:
    """The place of the question that is about to be asked.

    Raises:
        SettingsError: another thread of the same node asks as well. Which of them comes first is chance, so that after
            a resume nobody could tell whose answer is whose.
    """
    configurable = configured()
    number = next(_attempt(scratchpad(configurable)).numbers)
    return Place(str(configurable["thread_id"]), configurable["checkpoint_ns"], number, configurable[CHECKPOINT_MAP])


def answer_given(key: str) -> Outcome | None:
    """How the question ended, if that is among what the node was resumed with."""
    return next((outcome for value in scratchpad(configured()).resume if (outcome := answer_to(value, key))), None)


def is_resumed() -> bool:
    """Whether the node that runs was given an answer."""
    return bool(scratchpad(configured()).resume)


def passed_over() -> set[str]:
    """The keys of the questions whose answers this attempt of the node got where it asked another question.

    LangGraph gives a node its answers one by one, in the order in which they came. So such an answer is not given
    again, and a further `interrupt()` would take the answer to a later interrupt.
    """
    return _attempt(scratchpad(configured())).passed_over


def configured() -> dict[str, Any]:
    """What LangGraph has set for the node that runs."""
    return get_config().get("configurable", {})


def checkpointer() -> BaseCheckpointSaver[Any]:
    """What keeps the thread of the node that runs."""
    return cast("BaseCheckpointSaver[Any]", configured()[CHECKPOINTER])


def is_stored() -> bool:
    """Whether the graph of the node that runs stores checkpoints; not if it was compiled with `checkpointer=False`."""
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
