"""What Temporal carries. Its server takes payloads of 2 MB: 1.9 MB pass, 2.2 MB do not."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.outcome import Outcome

MOST_BYTES = 1_900_000
"""Of one payload: a question on its way out, or an answer on its way in."""

SUMMARY_BYTES = 400
"""Of a summary in the Temporal UI; a longer one fails the workflow task."""


def checked(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A question that Temporal can carry.

    Raises:
        InvalidTaskError: it is too large.
    """
    size = len(to_json(body))
    if size > MOST_BYTES:
        raise InvalidTaskError(
            f"the question is {size / 1e6:.1f} MB, and Temporal carries {MOST_BYTES / 1e6:.1f} MB: keep the document "
            "elsewhere and put a link into the payload"
        )
    return body


def fitting(outcome: Outcome) -> Outcome:
    """An outcome that Temporal can carry. An answer that is too large stays on the server, and the outcome says so."""
    size = len(to_json(outcome.value()))
    if size <= MOST_BYTES:
        return outcome
    omitted = f"it is {size / 1e6:.1f} MB, and Temporal carries {MOST_BYTES / 1e6:.1f} MB; read it from the server"
    return outcome.model_copy(update={"response": None, "response_omitted": omitted})


def summary(text: str) -> str:
    """As much of it as Temporal takes."""
    return text.encode()[:SUMMARY_BYTES].decode(errors="ignore")
