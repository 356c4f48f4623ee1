"""`HumansForTemporal`: people in the virtual time of a Temporal test server, in both modes and without a relay."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from devservers import tool
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    SignalWorkflowInput,
    WorkflowExecutionStatus,
)
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from awaithumans_adapters.temporal.testing import HumansForTemporal
from awaithumans_core.route import Route
from awaithumans_core.testing import Script
from tests.support.temporal import result, start
from tests.support.workflows import (
    TASK_QUEUE,
    WORKFLOWS,
    AskForFacts,
    AskOnQueue,
    AskTwoOfThree,
    AskUncaught,
    AskUpTheLadder,
    Decision,
)

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@pytest.fixture(params=["signal", "activity"])
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def env() -> AsyncGenerator[WorkflowEnvironment]:
    """A time-skipping Temporal server."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=tool("temporal-test-server")
    ) as running:
        yield running


@pytest.fixture
async def humans(env: WorkflowEnvironment) -> AsyncGenerator[HumansForTemporal]:
    """The people that the workflows of a worker ask."""
    async with HumansForTemporal(env, task_queues=["finance"]) as people:
        client = people.temporal_client
        async with Worker(
            client, task_queue=TASK_QUEUE, workflows=WORKFLOWS, workflow_runner=UnsandboxedWorkflowRunner()
        ):
            yield people


async def result_and_duration(humans: HumansForTemporal, via: str, **options: Any) -> tuple[dict[str, Any], timedelta]:
    """Return the workflow's result and its duration on the server's clock."""
    handle = await start(humans.temporal_client, AskForFacts.run, {"task": "Refund?", "via": via, **options})
    outcome = await result(handle)
    return outcome, datetime.fromisoformat(outcome["ended"]) - datetime.fromisoformat(outcome["began"])


async def test_answer_arrives_after_three_days(humans: HumansForTemporal, via: str) -> None:
    """The person answers three days later on the server's clock, long before the deadline."""
    humans.answer("Refund", {"approved": True}).after(3 * DAY).by("anna@example.com")
    outcome, took = await result_and_duration(humans, via, timeout_seconds=30 * 86400)
    assert outcome["error"] is None
    assert 3 * DAY <= took < 3 * DAY + MINUTE
    assert humans.task("Refund").completed_by_email == "anna@example.com"


@pytest.mark.edges
async def test_question_without_answer_times_out(humans: HumansForTemporal, via: str) -> None:
    """The question ends at its deadline."""
    outcome, took = await result_and_duration(humans, via, timeout_seconds=30 * 86400)
    assert outcome["error"] == "TaskTimeoutError"
    assert 30 * DAY <= took < 30 * DAY + MINUTE


@pytest.mark.edges
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (lambda person: person.answers({"approved": True}).by_email("anna@example.com"), None),
        (lambda person: person.passes("notified", "assigned").cancels(), "TaskCancelledError"),
        (lambda person: person.submits_invalid(), "ResponseSchemaError"),
    ],
    ids=["by-email", "cancelled", "invalid"],
)
async def test_each_end_arrives_at_its_time(
    humans: HumansForTemporal, via: str, script: Callable[[Script], Script], error: str | None
) -> None:
    """Each end arrives at its scripted time, also one without a callback and one after other statuses."""
    script(humans.on("Refund")).after(DAY)
    outcome, took = await result_and_duration(humans, via, timeout_seconds=30 * 86400)
    assert outcome["error"] == error
    assert DAY <= took < DAY + MINUTE


@pytest.mark.edges
async def test_open_questions_are_answered_in_order_of_time(humans: HumansForTemporal, via: str) -> None:
    """Questions that are open at the same time are answered in the order of their times."""
    for who, minutes, approved in (("a", 9, True), ("b", 3, False), ("c", 6, True)):
        humans.answer(assigned_to(f"{who}@example.com"), {"approved": approved}).after(minutes * MINUTE)
    handle = await start(humans.temporal_client, AskTwoOfThree.run, "Release?", via)
    assert (await result(handle))[0] is True
    ended = sorted(humans.tasks, key=lambda task: task.completed_at or task.created_at)
    assert [task.asked["assign_to"]["email"][0] for task in ended] == ["b", "c", "a"]


def assigned_to(email: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return a matcher for the tasks of one person."""
    return lambda task: task["assigned_to_email"] == email


@pytest.mark.edges
async def test_escalation_asks_the_second_person(humans: HumansForTemporal, via: str) -> None:
    """The second person is asked four hours later and answers, and the first person's task is cancelled."""
    humans.answer(assigned_to("b@example.com"), {"approved": True}).after(3600)
    handle = await start(humans.temporal_client, AskUpTheLadder.run, "Roll back?", via)
    assert await result(handle) == Decision(approved=True)
    assert {task.asked["assign_to"]["email"]: task.status.value for task in humans.tasks} == {
        "a@example.com": "cancelled",
        "b@example.com": "completed",
    }


@pytest.mark.edges
async def test_question_with_its_own_task_queue_is_answered(humans: HumansForTemporal, via: str) -> None:
    """The kit finds the question's activities on the task queues that it was given."""
    humans.answer("Refund", {"approved": True}).after(5 * MINUTE)
    handle = await start(humans.temporal_client, AskOnQueue.run, {"task": "Refund?", "via": via}, "finance")
    assert await result(handle) is True


@pytest.mark.edges
async def test_test_can_answer_without_a_script(humans: HumansForTemporal, env: WorkflowEnvironment) -> None:
    """In signal mode a test may answer by itself while it lets no time pass."""
    handle = await start(humans.temporal_client, AskUncaught.run, {"task": "Refund?"})
    with env.auto_time_skipping_disabled():
        async with asyncio.timeout(30):
            while not humans.tasks:
                await asyncio.sleep(0.01)
            humans.complete(humans.tasks[0].id, {"approved": True})
            assert await result(handle) is True


@pytest.mark.edges
async def test_leaving_ends_open_workflows(env: WorkflowEnvironment) -> None:
    """The kit terminates its open workflows, so the server can skip time in the next test."""
    for _ in range(2):
        async with HumansForTemporal(env) as humans:
            humans.answer("Refund", {"approved": True}).after(60)
            queue = humans.task_queue.replace("humans", "workflows")
            async with Worker(
                humans.temporal_client,
                task_queue=queue,
                workflows=[AskUncaught],
                workflow_runner=UnsandboxedWorkflowRunner(),
            ):
                question = {"task": "Never answered?", "timeout_seconds": 30 * 86400}
                left = await start(humans.temporal_client, AskUncaught.run, question, task_queue=queue)
                answered = await start(humans.temporal_client, AskUncaught.run, {"task": "Refund?"}, task_queue=queue)
                assert await result(answered) is True
                await left.terminate()


class ActsDuringASignal(Interceptor):
    """Calls a function once, while a signal of the client is under way."""

    act: Callable[[], Awaitable[None]] | None = None

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - its name in the SDK
        interceptor = self

        class Outbound(OutboundInterceptor):
            async def signal_workflow(self, input: SignalWorkflowInput) -> None:  # noqa: A002 - its name in the SDK
                act, interceptor.act = interceptor.act, None
                if act is not None:
                    await act()
                await super().signal_workflow(input)

        return Outbound(next)


async def register_question(humans: HumansForTemporal, key: str) -> str:
    """Ask a question that is never answered, register it, and return the id of the workflow that polls its task."""
    question = {
        "task": "Never answered?",
        "payload": {},
        "payload_schema": {},
        "response_schema": {},
        "timeout_seconds": 86400,
        "idempotency_key": key,
    }
    async with humans.client() as tasks:
        created = await tasks.create(question)
    route = Route("temporal", {"namespace": "default", "workflow_id": key}, key)
    await humans.register(created.task_id, humans.relay_settings.signer().prove(route, created.task_id))
    return f"{humans.task_queue}:{created.task_id}:{route.digest}"


@pytest.mark.edges
async def test_question_registered_while_leaving_is_ended_too(env: WorkflowEnvironment) -> None:
    """A question that is registered while the open ones are being ended does not disturb this, and is ended too."""
    polling: list[str] = []

    async def register() -> None:
        polling.append(await register_question(people, secrets.token_hex(8)))

    signals = ActsDuringASignal()
    config = env.client.config()
    config["interceptors"] = [signals]
    client = Client(**config)
    async with HumansForTemporal(WorkflowEnvironment.from_client(client)) as people:
        await register()
        signals.act = register
    ends = [await client.get_workflow_handle(each).describe() for each in polling]
    assert [end.status for end in ends] == [WorkflowExecutionStatus.COMPLETED] * 2
