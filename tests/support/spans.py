"""Finished spans of this process, kept in memory. OpenTelemetry takes one provider a process, so all tests share it."""

import time
from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.contrib.opentelemetry import create_tracer_provider

from awaithumans_core.trace import LOOK_SECONDS


@cache
def exporter() -> InMemorySpanExporter:
    """Where they are kept. The provider is one that Temporal's plugin takes as well."""
    kept = InMemorySpanExporter()
    provider = create_tracer_provider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    time.sleep(LOOK_SECONDS)  # within which a provider is noticed where none was
    return kept
