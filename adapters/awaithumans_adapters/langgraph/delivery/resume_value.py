"""What a checkpoint can keep of an outcome.

Law: a thread is resumed with something its checkpointer can keep. An answer that it cannot keep (nested too deep, or
holding an integer of more than 64 bits) is left out, and the node raises `ResponseMissingError`.
"""

from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from awaithumans_core.outcome import Outcome

AROUND = 16
"""Levels that LangGraph may nest a resume value in: lists of writes, and the body of a request to a server."""

SERVER = JsonPlusSerializer()
"""Keeps what a LangGraph server can be sent and keeps: its JSON has the limits of this serializer."""


def kept(outcome: Outcome, serde: SerializerProtocol = SERVER) -> Outcome:
    """The outcome, or the outcome without its response where only that cannot be kept.

    Args:
        outcome: How a question ended.
        serde: The serializer of the thread's checkpointer. Default: a LangGraph server's.
    """
    if (problem := _problem(outcome, serde)) is None:
        return outcome
    without = outcome.without_response(f"a checkpoint cannot keep it ({problem}); read it from the server")
    # A serializer may fail for reasons of its own, for instance a key that it cannot load now.
    return outcome if _problem(without, serde) is not None else without


def _problem(outcome: Outcome, serde: SerializerProtocol) -> str | None:
    """Why this outcome cannot be kept, in words that quote nothing of it."""
    value: Any = outcome.value()
    for _ in range(AROUND):
        value = [value]
    try:
        return None if serde.loads_typed(serde.dumps_typed(value)) == value else "it is read back as something else"
    except Exception as error:
        return type(error).__name__
