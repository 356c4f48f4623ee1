"""Repeated deliveries, and routes to targets that are not ours, on a real Temporal server."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer
from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyType
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest, ResetWorkflowExecutionRequest
from temporalio.client import (
    Client,
    DescribeWorkflowInput,
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    OutboundInterceptor,
    SignalWorkflowInput,
    WorkflowHandle,
)
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError
from temporalio.worker import Worker

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_adapters.temporal.names import activity_id
from awaithumans_core import Outcome, Route, TargetGone
from awaithumans_core.engine import SeesAnswers, SeesOrphans
from awaithumans_relay.commands.engines import EngineFlags
from tests.support.foreign_activity import Pays, pay
from tests.support.people import People
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.temporal import next_run, result, start, until_activities_started, until_open, until_waiting
from tests.support.workflows import AskAcrossRuns, AskUncaught

pytestmark = pytest.mark.edges

LARGE = {"approved": True, "note": "x" * 1_600_000}


class Calls(Interceptor):
    """Count the requests that the relay sends to Temporal."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        return _Counting(next, self.made)


class _Counting(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, made: Counter[str]) -> None:  # noqa: A002 - the SDK's name
        super().__init__(next)
        self._made = made

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:  # noqa: A002 - the SDK's name
        self._made["signal"] += 1
        await super().signal_workflow(input)

    async def describe_workflow(self, input: DescribeWorkflowInput) -> Any:  # noqa: A002 - the SDK's name
        self._made["describe"] += 1
        return await super().describe_workflow(input)

    def fetch_workflow_history_events(self, input: FetchWorkflowHistoryEventsInput) -> Any:  # noqa: A002 - the SDK's name
        self._made["history"] += 1
        return super().fetch_workflow_history_events(input)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@asynccontextmanager
async def counting_relay(
    temporal: TemporalServer, humans: HumansServer, folder: Path, calls: Calls
) -> AsyncGenerator[tuple[RunningRelay, Server]]:
    engine = TemporalEngine(lambda: Client.connect(temporal.address, interceptors=[calls]))
    async with running_relay([engine], humans, folder) as relay:
        server = Server(relay, humans)
        yield relay, server
        await server.http.aclose()


def route_to(workflow_id: str, key: str, **more: str) -> Route:
    return Route("temporal", {"namespace": "default", "workflow_id": workflow_id, **more}, key)


def yes(key: str, task_id: str = "task-1", **fields: Any) -> Outcome:
    return Outcome(task_id=task_id, status="completed", response={"approved": True}, idempotency_key=key, **fields)


async def signals(handle: WorkflowHandle[Any, Any]) -> int:
    """Return how many answers the current run of the workflow has received."""
    current = handle_of_current_run(handle)
    events = [event async for event in current.fetch_history_events()]
    given = [event.workflow_execution_signaled_event_attributes.signal_name for event in events]
    return given.count("awaithumans.answer")


def handle_of_current_run(handle: WorkflowHandle[Any, Any]) -> WorkflowHandle[Any, Any]:
    client: Client = handle._client
    return client.get_workflow_handle(handle.id)


@pytest.mark.edges
async def test_repeated_registrations_signal_the_workflow_once(
    client: Client, temporal: TemporalServer, humans: HumansServer, tmp_path: Path, calls: Calls
) -> None:
    """The holder of a leaked route token has a large answer delivered repeatedly; the workflow receives it once."""
    handle = await start(client, "Ask", task_queue="no worker")
    route = route_to(handle.id, "question-1")
    async with counting_relay(temporal, humans, tmp_path, calls) as (relay, server):
        await server.register(route)
        await server.call_back(route, response=LARGE)
        await relay.wait_for("task-1", "delivered")
        for _ in range(40):
            assert (await server.register(route)).status_code == 200
            await asyncio.sleep(0.1)
    described = (await handle.describe()).raw_description
    assert described.workflow_execution_info.history_size_bytes < 2_000_000
    assert await signals(handle) == 1
    assert calls.made["signal"] <= 5  # the first delivery, one repeat at once, then repeats after 1, 2 and 4 s
    await handle.terminate()


@pytest.mark.parametrize("state", ["delivered", "parked"])
async def test_registration_for_an_ended_workflow_reads_no_history(
    client: Client,
    temporal: TemporalServer,
    humans: HumansServer,
    tmp_path: Path,
    calls: Calls,
    state: str,
    via: str,
) -> None:
    """Eight registrations cost a few small requests and read no history of a caller that had its answer."""
    handle = await start(client, "Ask", task_queue="no worker")
    route = route_to(handle.id, "question-1", **({"activity_id": "human:1"} if via == "activity" else {}))
    async with counting_relay(temporal, humans, tmp_path, calls) as (relay, server):
        await server.register(route)
        if state == "parked":
            await handle.terminate()
        await server.call_back(route)
        await relay.wait_for("task-1", state)
        if state == "delivered":
            await handle.terminate()
        calls.made.clear()
        for _ in range(8):
            assert (await server.register(route)).status_code == 200
            await asyncio.sleep(0.1)
        made = dict(calls.made)
    # One delivery at once, the next after 1, 2 and 4 s: only a few fit into this test.
    assert sum(made.values()) <= (3 if state == "delivered" else 6)
    if state == "delivered":
        assert set(made) == {"describe"}


async def test_interceptor_added_by_a_plugin_sees_the_signal_once(temporal: TemporalServer, calls: Calls) -> None:
    """Interceptors added by a plugin may set headers, just as those passed to the client."""
    client = await Client.connect(temporal.address, plugins=[SimplePlugin("test", interceptors=[calls])])
    handle = await start(client, "Ask", task_queue="no worker")
    calls.made.clear()
    await TemporalEngine(client).deliver(route_to(handle.id, "question-1"), yes("question-1"))
    assert calls.made == {"signal": 1}
    assert await signals(handle) == 1
    await handle.terminate()


@pytest.mark.parametrize("end", ["continued as new", "reset"])
async def test_each_run_receives_a_repeated_answer_once(
    client: Client, people: People, question: str, end: str
) -> None:
    """However often an answer is delivered, each run receives it once, and a run that lacks it receives it."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": "signal"})
    await people.find(question)
    await until_waiting(handle)
    engine, route, answer = TemporalEngine(client), route_to(handle.id, "another"), yes("another")
    for _ in range(3):
        await engine.deliver(route, answer)
    await until_waiting(handle)  # events that arrive during a workflow task are recorded after it
    assert await signals(handle) == 1
    if end == "reset":
        await reset(client, handle)
    else:
        await next_run(handle_of_current_run(handle), AskAcrossRuns.go_on)
    assert await signals(handle) == 0
    for _ in range(2):
        await engine.deliver(route, answer)
    await until_waiting(handle_of_current_run(handle))
    assert await signals(handle) == 1
    await handle_of_current_run(handle).terminate()


async def reset(client: Client, handle: WorkflowHandle[Any, Any]) -> None:
    """Reset the workflow to its beginning, without the signals that it has received since."""
    events = [event async for event in handle.fetch_history_events()]
    first = next(event.event_id for event in events if event.HasField("workflow_task_completed_event_attributes"))
    request = ResetWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=str(handle.result_run_id)),
        reason="a test",
        workflow_task_finish_event_id=first,
        request_id=uuid.uuid4().hex,
        reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_NONE,
    )
    await client.workflow_service.reset_workflow_execution(request)


async def test_run_after_a_reset_gets_the_delivered_answer_at_once(
    client: Client, relay: RunningRelay, humans: HumansServer, people: People, question: str
) -> None:
    """The run after a reset registers again and is not delayed by the registrations of the run before."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": "signal"})
    (task,) = await people.find(question)
    await until_open(relay, task)
    server, route = Server(relay, humans), route_to(handle.id, task["idempotency_key"])
    await server.call_back(route, task["id"])
    await relay.wait_for(task["id"], "delivered")
    await reset(client, handle)
    await server.register(route, task["id"])
    async with asyncio.timeout(5):
        while await signals(handle) != 1:
            await asyncio.sleep(0.05)
    assert (await result(handle_of_current_run(handle)))[:2] == [1, True]
    await server.http.aclose()


@pytest.fixture
async def payment(client: Client, question: str) -> AsyncGenerator[WorkflowHandle[Any, Any]]:
    """Start a workflow that asks no question and has its own activity running."""
    async with Worker(client, task_queue=question, workflows=[Pays], activities=[pay]):
        handle = await start(client, Pays.run, task_queue=question)
        async with asyncio.timeout(30):
            while not (await handle.describe()).raw_description.pending_activities:
                await asyncio.sleep(0.05)
        await until_activities_started(handle, 1)
        yield handle
        await handle.terminate()


@pytest.mark.parametrize("run", ["current run", "named run"])
async def test_activity_of_another_type_is_not_completed(
    payment: WorkflowHandle[Any, Any], relay: RunningRelay, humans: HumansServer, run: str
) -> None:
    """A signed answer with a signed route to another type of activity is parked with the reason."""
    named = {"run_id": str(payment.result_run_id)} if run == "named run" else {}
    route = route_to(payment.id, f"stolen-{payment.id}-{run}", activity_id="human:payment", **named)
    server, task_id = Server(relay, humans), uuid.uuid4().hex
    await server.call_back(route, task_id)
    (wait,) = await relay.wait_for(task_id, "parked")
    assert "'pay'" in str(wait.last_error)
    assert "'awaithumans.await_human'" in str(wait.last_error)
    assert len((await payment.describe()).raw_description.pending_activities) == 1
    await server.http.aclose()


async def test_namespace_that_is_not_configured_is_refused(temporal: TemporalServer, calls: Calls) -> None:
    """The refusal names the namespace and the setting, and nothing is sent."""
    connected = await Client.connect(temporal.address, interceptors=[calls])
    route = Route("temporal", {"namespace": "payments", "workflow_id": "w"}, "k")
    (of_flags,) = await EngineFlags(temporal.address, [], None, ["refunds"]).engines(AsyncExitStack())
    for engine, configured in (
        (TemporalEngine(connected), "default"),
        (TemporalEngine(connected, namespaces=["refunds", "invoices"]), "invoices, refunds"),
        (of_flags, "refunds"),
    ):
        with pytest.raises(TargetGone, match=rf"'payments' is not configured .*: {configured}\): add it"):
            await engine.deliver(route, yes("k"))
        assert isinstance(engine, SeesAnswers)
        assert isinstance(engine, SeesOrphans)
        with pytest.raises(TargetGone):
            await engine.has_answer(route)
        assert await engine.orphaned(route) is None
    assert not calls.made


@pytest.mark.edges
async def test_answer_waits_until_its_namespace_is_configured(client: Client, temporal: TemporalServer) -> None:
    """A workflow in another namespace receives the answer once its namespace is configured."""
    name = f"n-{uuid.uuid4().hex[:8]}"
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=name, workflow_execution_retention_period=Duration(seconds=int(timedelta(days=1).total_seconds()))
        )
    )
    other = await Client.connect(temporal.address, namespace=name)
    handle = await until_known(lambda: start(other, "Ask", task_queue="no worker"))
    route = Route("temporal", {"namespace": name, "workflow_id": handle.id}, "question-1")
    with pytest.raises(TargetGone, match="not configured"):
        await TemporalEngine(client).deliver(route, yes("question-1"))
    assert await signals(handle) == 0
    await TemporalEngine(client, namespaces=["default", name]).deliver(route, yes("question-1"))
    assert await signals(handle) == 1
    await handle.terminate()


async def until_known(
    begin: Callable[[], Awaitable[WorkflowHandle[Any, Any]]],
) -> WorkflowHandle[Any, Any]:
    """Wait until Temporal, which reads its namespaces every few seconds, knows this one."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await begin()
            except RPCError:
                await asyncio.sleep(0.5)


async def test_activity_of_this_package_is_completed(client: Client, people: People, question: str) -> None:
    """The type of the activity is looked up in the same run in which it is completed."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": "activity"})
    (task,) = await people.find(question)
    await until_activities_started(handle, 1)
    key = task["idempotency_key"]
    route = route_to(handle.id, key, activity_id=activity_id(str(handle.result_run_id), 1))
    await TemporalEngine(client).deliver(route, yes(key))
    assert await handle.result() is True
