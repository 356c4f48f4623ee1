"""What Temporal carries. Its server takes payloads of 2 MB: 1.9 MB pass, 2.2 MB do not.

Sizes are those of the payloads that a converter makes: JSON with escapes is twice as large as JSON without.
"""

from collections.abc import Iterable
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import markdown, one_line

MOST_BYTES = 1_900_000
"""Of one payload: a question on its way out, or an answer on its way in."""

SUMMARY_BYTES = 400
"""Of a summary in the Temporal UI; a longer one fails the workflow task."""


def size_of(payloads: Iterable[Payload]) -> int:
    """Bytes."""
    return sum(len(payload.data) for payload in payloads)


def check_question(size: int) -> None:
    """Raise unless Temporal can carry a question of so many bytes.

    Raises:
        InvalidTaskError: it is too large.
    """
    if size > MOST_BYTES:
        raise InvalidTaskError(
            f"the question is {size / 1e6:.1f} MB, and Temporal carries {MOST_BYTES / 1e6:.1f} MB: keep the document "
            "elsewhere and put a link into the payload"
        )


def fitting(outcome: Outcome, size: int) -> Outcome:
    """An outcome that Temporal can carry. An answer that is too large stays on the server, and the outcome says so."""
    if size <= MOST_BYTES:
        return outcome
    return outcome.without_response(
        f"it is {size / 1e6:.1f} MB, and Temporal carries {MOST_BYTES / 1e6:.1f} MB; read it from the server"
    )


def readable(outcome: Outcome, *converters: PayloadConverter) -> Outcome:
    """An outcome that each of these converters can write and read. An answer that one of them cannot is left out.

    A worker drops a signal that it cannot decode, and cannot go on after an activity result that it cannot decode.
    """
    value = outcome.value()
    for converter in converters:
        try:
            converter.from_payloads(converter.to_payloads([value]), [dict[str, Any]])
        except Exception as error:
            # Not what the error says: it may quote the answer.
            return outcome.without_response(
                f"{type(converter).__name__} cannot carry it ({type(error).__name__}), as it may be nested too deep; "
                "read it from the server"
            )
    return outcome


def summary(text: str) -> str:
    """As much of a question as Temporal takes. Temporal reads a summary as Markdown, so nothing in it is markup."""
    room = SUMMARY_BYTES - len("``")  # of a code span
    return markdown(one_line(text).encode()[:room].decode(errors="ignore"))
