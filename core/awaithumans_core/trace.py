"""Spans that link an answer to its question, if the application traces with OpenTelemetry (extra `otel`).

A person may take days. No span stays open for that time, and nothing that happens later is a child of a trace that
ended long ago. Asking, receiving the answer, finding it and delivering it are separate spans. Each is linked to the
span that asked, as OpenTelemetry's conventions for messaging recommend. The link is a W3C `traceparent`, which is
carried beside the route and signed with it. It is not part of the question's identity.

Spans contain ids, engines and results. They never contain questions, answers, or exception texts that may repeat them.
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

PROVIDER_CHECK_SECONDS = 1.0
"""Seconds between two checks for a tracer provider while none is set: a check takes as long as reading an answer."""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


@contextmanager
def span(
    name: str, kind: Literal["producer", "consumer"], *, links: Iterable[str | None] = (), **facts: str
) -> Generator[None]:
    """Trace the block as a span, if the application traces.

    Args:
        name: Name of the span, of low cardinality: without ids.
        kind: Whether the block asks a question (`producer`) or brings an answer (`consumer`).
        links: The `traceparent` of each caller.
        facts: Attributes of the span; see `note`.
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
    """Detects whether the application has set a tracer provider."""

    checked_at = -PROVIDER_CHECK_SECONDS

    def is_set(self) -> bool:
        if _otel is None or time.monotonic() - self.checked_at < PROVIDER_CHECK_SECONDS:
            return False
        if isinstance(_otel.get_tracer_provider(), _otel.ProxyTracerProvider):
            self.checked_at = time.monotonic()
            return False
        return True


tracing = _Provider().is_set
"""Whether spans are recorded. A provider that is set later is detected within `PROVIDER_CHECK_SECONDS`."""


def note(**facts: str) -> None:
    """Set attributes of the current span. Each name gets the prefix `awaithumans.`."""
    if _otel is not None:
        _otel.get_current_span().set_attributes({f"awaithumans.{name}": value for name, value in facts.items()})


@contextmanager
def asking(route: Route) -> Generator[Route]:
    """Trace the asking of a question. The yielded route carries the `traceparent` of this span."""
    with span(f"ask {route.engine}", "producer", engine=route.engine, wait_id=route.digest):
        yield replace(route, traceparent=traceparent() or route.traceparent)


def traceparent() -> str | None:
    """Return the `traceparent` of the current span; None if there is none."""
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
