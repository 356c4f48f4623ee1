"""Reduces an outcome to what a checkpoint can store.

Law: a thread is resumed only with a value that its checkpointer can store. A response that it cannot store (nested too
deep, or containing an integer of more than 64 bits) is left out, and the node raises `ResponseMissingError`.
"""

from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from awaithumans_core.outcome import Outcome

AROUND = 16
"""Levels of nesting that LangGraph may add around a resume value: lists of writes, and the body of a server request."""

SERVER = JsonPlusSerializer()
"""Serializer for LangGraph servers. Their JSON has the same limits."""


def kept(outcome: Outcome, serde: SerializerProtocol = SERVER) -> Outcome:
    """Return the outcome, or a copy without its response if only the response cannot be stored.

    Args:
        outcome: How a question ended.
        serde: The serializer of the thread's checkpointer. Default: that of a LangGraph server.
    """
    if (problem := _problem(outcome, serde)) is None:
        return outcome
    without = outcome.without_response(f"a checkpoint cannot keep it ({problem}); read it from the server")
    # A serializer may fail for reasons of its own, for instance a key that it cannot load now.
    return outcome if _problem(without, serde) is not None else without


def _problem(outcome: Outcome, serde: SerializerProtocol) -> str | None:
    """Return why this outcome cannot be stored, without quoting any of its content, or None if it can."""
    value: Any = outcome.value()
    for _ in range(AROUND):
        value = [value]
    try:
        return None if serde.loads_typed(serde.dumps_typed(value)) == value else "it is read back as something else"
    except Exception as error:
        return type(error).__name__
