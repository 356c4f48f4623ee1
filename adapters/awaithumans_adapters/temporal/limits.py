"""Size limits of Temporal payloads. Its server accepts payloads of 2 MB: 1.9 MB pass, 2.2 MB do not.

Law: a size is that of the payload which Temporal receives, after the converter, the codec and external storage. A codec
may compress a payload or make it larger, and of a stored payload Temporal receives a short reference.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadConverter, SerializationContext

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import markdown, one_line

MAX_BYTES = 1_900_000
"""Maximum size of one payload: a question on its way out, or an answer on its way in."""

MEASURED_FROM_BYTES = MAX_BYTES // 2
"""Size before the codec from which a question is measured after the codec.

A smaller question fits whatever the codec does, since no codec in use more than doubles a payload. The limit is a
constant, so that replay does not depend on the worker's codec.
"""

SUMMARY_BYTES = 400
"""Maximum size of a summary in the Temporal UI. A longer one fails the workflow task."""


def size_of(payloads: Iterable[Payload]) -> int:
    """Return the total size of the payloads in bytes."""
    return sum(len(payload.data) for payload in payloads)


def check_question(size: int) -> None:
    """Raise unless Temporal can carry a question of this size in bytes.

    Raises:
        InvalidTaskError: the question is too large.
    """
    if size > MAX_BYTES:
        raise InvalidTaskError(
            f"the question is {size / 1e6:.1f} MB, and Temporal carries {MAX_BYTES / 1e6:.1f} MB: keep the document "
            "elsewhere and put a link into the payload, or give the workers and the relay external storage"
        )


async def encoded_size(value: Any, converter: DataConverter, context: SerializationContext) -> int:
    """Return the size in bytes of the payload that Temporal receives for this value.

    Nothing is put into external storage unless the value needs it.
    """
    without_storage = replace(converter, external_storage=None).with_context(context)
    size = size_of(await without_storage.encode([value]))
    if size <= MAX_BYTES or converter.external_storage is None:
        return size
    return size_of(await converter.with_context(context).encode([value]))


async def carried(
    outcome: Outcome, converter: DataConverter, context: SerializationContext, *readers: PayloadConverter
) -> Outcome:
    """Return an outcome that Temporal can carry as encoded by this converter, and that the readers can read.

    A response that is too large, or cannot be read, is left out, and the outcome gives the reason.
    """
    legible = readable(outcome, converter.with_context(context).payload_converter, *readers)
    return fitting(legible, await encoded_size(legible.value(), converter, context))


def fitting(outcome: Outcome, size: int) -> Outcome:
    """Return an outcome that Temporal can carry.

    A response that is too large is left out, and the outcome gives the reason.
    """
    if size <= MAX_BYTES:
        return outcome
    return outcome.without_response(
        f"it is {size / 1e6:.1f} MB, and Temporal carries {MAX_BYTES / 1e6:.1f} MB; read it from the server"
    )


def readable(outcome: Outcome, *converters: PayloadConverter) -> Outcome:
    """Return an outcome that each of these converters can write and read, without the response if one of them cannot.

    A worker drops a signal that it cannot decode, and cannot continue after an activity result that it cannot decode.
    """
    value = outcome.value()
    for converter in converters:
        try:
            converter.from_payloads(converter.to_payloads([value]), [dict[str, Any]])
        except Exception as error:
            # without the error's text, which may quote the answer
            return outcome.without_response(
                f"{type(converter).__name__} cannot carry it ({type(error).__name__}), as it may be nested too deep; "
                "read it from the server"
            )
    return outcome


def summary(text: str) -> str:
    """Return as much of a question as Temporal accepts for a summary.

    Temporal renders a summary as Markdown, so the text is escaped.
    """
    room = SUMMARY_BYTES - len("``")  # minus the delimiters of a code span
    return markdown(one_line(text).encode()[:room].decode(errors="ignore"))
