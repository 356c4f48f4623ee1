"""Finished spans of this process, shared by all tests, because OpenTelemetry allows one provider per process."""

import time
from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.contrib.opentelemetry import create_tracer_provider

from awaithumans_core.trace import PROVIDER_CHECK_SECONDS


@cache
def exporter() -> InMemorySpanExporter:
    """Return the exporter of the spans, whose provider is accepted by Temporal's plugin as well."""
    kept = InMemorySpanExporter()
    provider = create_tracer_provider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    time.sleep(PROVIDER_CHECK_SECONDS)  # a new provider is noticed within this time
    return kept
