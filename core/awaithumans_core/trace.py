"""Spans that join an answer to its question, where the application traces with OpenTelemetry (extra `otel`).

A person may take days: no span stays open for that, and nothing that happens then is the child of a trace which was
over long ago. Asking, taking the answer, finding it and delivering it are spans of their own, and each is linked to the
one that asked, as OpenTelemetry's conventions for messaging have it. What links them is a W3C `traceparent`, which
travels beside the route and is signed with it; it is no part of the question's identity.

Spans name ids, engines and results: never what was asked or answered, nor an exception's words, which may repeat it.
Without opentelemetry-api, and without a tracer provider, all of this does nothing.
"""

import re
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from awaithumans_core.route import Route

if TYPE_CHECKING:
    from opentelemetry.trace import Link

try:
    from opentelemetry import trace as _otel
except ImportError:
    _otel = None  # type: ignore[assignment]

TRACER = "awaithumans"

LOOK_SECONDS = 1.0
"""While no tracer provider is set, how often it is looked for: to look takes as long as to read an answer."""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


@contextmanager
def span(
    name: str, kind: Literal["producer", "consumer"], *, links: Iterable[str | None] = (), **facts: str
) -> Generator[None]:
    """Trace the block.

    Args:
        name: Of low cardinality: no ids.
        kind: Whether it asks or brings an answer.
        links: `traceparent` of those who asked.
        facts: Attributes; see `note`.
    """
    if _otel is None or not tracing():
        yield
        return
    tracer, kinds = _otel.get_tracer(TRACER), {"producer": _otel.SpanKind.PRODUCER, "consumer": _otel.SpanKind.CONSUMER}
    with tracer.start_as_current_span(
        name, kind=kinds[kind], links=_links(links), record_exception=False, set_status_on_exception=False
    ) as current:
        note(**facts)
        try:
            yield
        except Exception as error:
            current.set_attribute("error.type", type(error).__qualname__)
            current.set_status(_otel.StatusCode.ERROR)
            raise


class _Provider:
    """Whether somebody has set one."""

    looked_at = -LOOK_SECONDS

    def is_set(self) -> bool:
        if _otel is None or time.monotonic() - self.looked_at < LOOK_SECONDS:
            return False
        if isinstance(_otel.get_tracer_provider(), _otel.ProxyTracerProvider):
            self.looked_at = time.monotonic()
            return False
        return True


tracing = _Provider().is_set
"""Whether spans go anywhere. A provider that is set later is noticed within `LOOK_SECONDS`."""


def note(**facts: str) -> None:
    """Attributes of the current span, each named `awaithumans.` and its name."""
    if _otel is not None:
        _otel.get_current_span().set_attributes({f"awaithumans.{name}": value for name, value in facts.items()})


@contextmanager
def asking(route: Route) -> Generator[Route]:
    """Trace the asking of a question; the route that is yielded leads back to it."""
    with span(f"ask {route.engine}", "producer", engine=route.engine, wait_id=route.digest):
        yield replace(route, traceparent=traceparent() or route.traceparent)


def traceparent() -> str | None:
    """The current span's, if there is one."""
    context = _otel.get_current_span().get_span_context() if _otel is not None else None
    if _otel is None or context is None or not context.is_valid:
        return None
    trace_id, span_id = _otel.format_trace_id(context.trace_id), _otel.format_span_id(context.span_id)
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


def _links(askers: Iterable[str | None]) -> "list[Link]":
    if _otel is None:
        return []
    found = [_TRACEPARENT.fullmatch(asker) for asker in dict.fromkeys(askers) if asker]
    return [
        _otel.Link(
            _otel.SpanContext(
                int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=_otel.TraceFlags(int(match[3], 16))
            )
        )
        for match in found
        if match
    ]
