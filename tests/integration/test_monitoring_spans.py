"""Spans link an answer to its question, however long it took and whichever way it came."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from awaithumans_core import HumanTask, Route
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.servers import FakeServer
from tests.support.spans import exporter
from tests.support.workflows import Decision

TRACER = trace.get_tracer("script")


class FailingEngine(CollectingEngine):
    """Fail a given number of times, with text that must not be logged."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    async def deliver(self, route: Route, outcome: object) -> None:
        if self.failures:
            self.failures -= 1
            raise ValueError(f"cannot take {outcome}")
        await super().deliver(route, outcome)  # type: ignore[arg-type]  # it is one


@pytest.fixture
def spans() -> InMemorySpanExporter:
    exporter().clear()
    return exporter()


@pytest.fixture
async def engine() -> FailingEngine:
    return FailingEngine()


@pytest.fixture
async def people(fake: FakeServer) -> AsyncGenerator[People]:
    somebody = People(fake)
    yield somebody
    await somebody.aclose()


def asked(name: str) -> tuple[HumanTask[Decision], Route]:
    question = HumanTask(task=name, response_schema=Decision, idempotency_key=name)
    return question, Route("shelf", {"place": name}, name)


async def until(spans: InMemorySpanExporter, *names: str) -> dict[str, ReadableSpan]:
    """Return our spans by name, once all of these have ended."""
    async with asyncio.timeout(60):
        while not set(names) <= (ended := {span.name: span for span in spans.get_finished_spans()}).keys():
            await asyncio.sleep(0.02)
    return ended


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_callback_and_delivery_are_linked_to_the_question(
    spans: InMemorySpanExporter, relay: RunningRelay, people: People
) -> None:
    """The question is a span of the script's trace; callback and delivery are traces linked to it."""
    question, route = asked("traced by callback")
    with TRACER.start_as_current_span("the script") as script:
        outcome = await relay.human_tasks().open(question.body(), route)
    await people.complete(outcome.task_id, {"approved": True})
    found = await until(spans, "ask shelf", "receive answer", "deliver shelf")
    ask = found["ask shelf"]
    assert (ask.kind, ask.context.trace_id) == (SpanKind.PRODUCER, script.get_span_context().trace_id)
    assert ask.parent is not None
    assert ask.parent.span_id == script.get_span_context().span_id
    for name in ("receive answer", "deliver shelf"):
        span = found[name]
        assert (span.kind, span.parent) == (SpanKind.CONSUMER, None)
        assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
            (ask.context.trace_id, ask.context.span_id)
        ]
        assert span.context.trace_id != ask.context.trace_id
    assert not [span.name for span in found.values() if relay.settings.signer().issue(route)[:20] in span.to_json()]
    for span in (ask, found["receive answer"], found["deliver shelf"]):
        assert facts(span)["awaithumans.task_id"] == outcome.task_id
        assert facts(span)["awaithumans.wait_id"] == route.digest


async def test_answer_found_by_the_sweep_is_linked_to_the_question(
    spans: InMemorySpanExporter, relay: RunningRelay, fake: FakeServer
) -> None:
    """The trace is kept with the wait, and the caller needs no enclosing trace."""
    question, route = asked("traced by sweep")
    fake.fake.answer(route.idempotency_key, {"approved": True}).by_email()
    outcome = await asyncio.to_thread(relay.human_tasks().open_sync, question.body(), route)
    await relay.check_now(outcome.task_id)
    found = await until(spans, "ask shelf", "find answer", "deliver shelf")
    assert facts(found["find answer"])["awaithumans.task_id"] == outcome.task_id
    for name in ("find answer", "deliver shelf"):
        assert [link.context.span_id for link in found[name].links] == [found["ask shelf"].context.span_id]


async def test_failed_delivery_span_has_the_kind_of_error_only(
    spans: InMemorySpanExporter, relay: RunningRelay, people: People, engine: FailingEngine
) -> None:
    """An engine's error text may repeat the answer, so only the type of the error is recorded."""
    engine.failures = 1
    question, route = asked("traced and failed")
    outcome = await relay.human_tasks().open(question.body(), route)
    await people.complete(outcome.task_id, {"approved": True})
    await relay.wait_for(outcome.task_id, "delivered")
    tries = [span for span in spans.get_finished_spans() if span.name == "deliver shelf"]
    assert [span.status.status_code for span in tries] == [StatusCode.ERROR, StatusCode.UNSET]
    assert facts(tries[0])["error.type"] == "ValueError"
    assert all(len(span.links) == 1 for span in tries)
    assert not any("cannot take" in span.to_json() for span in spans.get_finished_spans())


def test_core_works_without_opentelemetry() -> None:
    """Asking works where OpenTelemetry is not installed; FastAPI may bring it to a relay."""
    program = """
import sys
sys.modules["opentelemetry"] = None
from awaithumans_core import Route
from awaithumans_core.trace import asking, note, span, traceparent
with asking(Route("shelf", {}, "k")) as route, span("deliver", "consumer", links=[None]):
    note(task_id="task-1")
assert (route.traceparent, traceparent()) == (None, None)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=180)
