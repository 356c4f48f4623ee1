"""What Temporal can do to a question, in both modes: signal wait and activity. The same results in each."""

import asyncio
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from examples.demo.servers import HumansServer, Process, TemporalServer, free_port, started, tool
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_core import Outcome, Route, TargetGone
from tests.support.askers import TemporalAsker
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay, settings_for
from tests.support.workflows import (
    TASK_QUEUE,
    WORKFLOWS,
    Ask,
    AskAcrossRuns,
    AskAndEnd,
    AskBarely,
    AskBesideADynamicHandler,
    AskHugely,
    AskImpatiently,
    AskInChild,
    AskLikeAScript,
    AskNamedAndUnnamed,
    AskSeveral,
    AskThenForget,
    AskTwoOfThree,
    AskUncaught,
    AskUpTheLadder,
    CountsRightly,
    CountsWrongly,
    Decision,
)

ROOT = Path(__file__).resolve().parents[2]
YES, NO = {"approved": True}, {"approved": False}


@pytest.fixture(params=["signal", "activity"])
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def asker(temporal: TemporalServer) -> TemporalAsker:
    return TemporalAsker(temporal.address)


@pytest.fixture(scope="module")
async def relay(
    asker: TemporalAsker, humans: HumansServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[RunningRelay]:
    async with (
        running_relay([asker.engine], humans, tmp_path_factory.mktemp("modes-relay")) as running,
        asker.ready(running.settings),
    ):
        yield running


@pytest.fixture
def client(relay: RunningRelay, asker: TemporalAsker) -> Client:
    assert relay.url
    return asker.client


class HastyPeople(People):
    """Their answers are seen at once."""

    relay: RunningRelay

    async def complete(self, task_id: str, response: dict[str, Any], by: str = "anna@example.com") -> None:
        await super().complete(task_id, response, by)
        with suppress(TimeoutError):  # nobody waits for it through this relay
            await self.relay.hurry(task_id, 2)


@pytest.fixture
async def people(humans: HumansServer, relay: RunningRelay) -> AsyncGenerator[HastyPeople]:
    hasty = HastyPeople(humans)
    hasty.relay = relay
    yield hasty
    await hasty.aclose()


@pytest.fixture
def question() -> str:
    return f"Approve {uuid.uuid4().hex[:8]}?"


async def start(client: Client, workflow: Any, *arguments: Any, **options: Any) -> WorkflowHandle[Any, Any]:
    given = {"id": f"m-{uuid.uuid4().hex}", "task_queue": TASK_QUEUE, **options}
    return await client.start_workflow(workflow, args=list(arguments), **given)


async def result(handle: WorkflowHandle[Any, Any], seconds: float = 40) -> Any:
    return await asyncio.wait_for(handle.result(), seconds)


async def until_open(relay: RunningRelay, task: Any) -> None:
    await relay.wait_for(task["id"], "open")


async def until_parked(handle: WorkflowHandle[Any, Any]) -> list[dict[str, Any]]:
    """What the workflow waits for, once it waits for something."""
    async with asyncio.timeout(20):
        while not (pending := await _pending(handle)):
            await asyncio.sleep(0.05)
    return pending


async def _pending(handle: WorkflowHandle[Any, Any]) -> list[dict[str, Any]]:
    try:
        return list(await handle.query("pending_human_tasks"))
    except Exception as early:
        assert "pending_human_tasks" in str(early)  # noqa: PT017 - before the workflow has come to its first question
        return []


# --- who gets which answer


async def test_each_gets_its_own_answer(client: Client, people: People, question: str, via: str) -> None:
    """Two people one after the other, then two at once: no answer is taken for another question's."""
    handle = await start(client, AskSeveral.run, question, via)
    for which, approved in [("first", False), ("second", True)]:
        await people.answer(f"{question}: {which}?", {"approved": approved})
    await people.answer(f"{question}: right?", YES)
    await people.answer(f"{question}: left?", NO)
    assert await result(handle) == [False, True, False, True]


async def test_a_child_workflow_asks(client: Client, people: People, question: str, via: str) -> None:
    """The child is the asker, and its parent gets what it returns."""
    handle = await start(client, AskInChild.run, {"task": question, "via": via})
    await people.answer(question, YES)
    assert (await result(handle))["approved"] is True


async def test_two_with_one_key(client: Client, people: People, question: str, via: str) -> None:
    """Two workflows that share a key share the question, and each gets its answer."""
    options = {"task": question, "via": via, "idempotency_key": f"shared {question}"}
    handles = [await start(client, AskUncaught.run, options) for _ in range(2)]
    for handle in handles:
        await until_parked(handle)
    (task,) = await people.find(question)
    await asyncio.sleep(0.5)  # both have registered
    await people.complete(task["id"], YES)
    assert [await result(handle) for handle in handles] == [True, True]


# --- from run to run


async def test_replay_without_a_cache(people: People, relay: RunningRelay, temporal: TemporalServer, via: str) -> None:
    """A worker that remembers nothing replays the workflow at every step and comes to the same questions."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    name = f"q-{uuid.uuid4().hex}"
    async with Worker(client, task_queue=name, workflows=WORKFLOWS, max_cached_workflows=0):
        handle = await client.start_workflow(AskSeveral.run, args=[name, via], id=name, task_queue=name)
        for question, approved in [("first", True), ("second", False), ("left", True), ("right", False)]:
            await people.answer(f"{name}: {question}?", {"approved": approved})
        assert await result(handle) == [True, False, True, False]


async def test_open_waits_go_on_in_the_next_run(
    client: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """A workflow that continues as new twice keeps its question: nobody is asked again, and the answer arrives."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    for _ in range(2):
        run = (await handle.describe()).run_id
        await until_parked(handle)
        await handle.signal(AskAcrossRuns.go_on)
        async with asyncio.timeout(20):
            while (await handle.describe()).run_id == run:
                await asyncio.sleep(0.05)
    assert [pending["task_id"] for pending in await until_parked(handle)] in ([task["id"]], [None])
    await people.complete(task["id"], YES)
    assert await result(handle) == [3, True, "anna@example.com"]
    assert len(await people.find(question)) == 1
    await relay.wait_for(task["id"], "delivered")


async def test_an_answer_between_two_runs(
    client: Client, people: People, relay: RunningRelay, humans: HumansServer, question: str, via: str
) -> None:
    """Given while no run waits for it, and a dynamic handler takes what comes: it is kept all the same."""
    handle = await start(client, AskBesideADynamicHandler.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_open(relay, task)
    run = (await handle.describe()).run_id
    await handle.signal("something", 1)
    async with asyncio.timeout(20):
        while (await handle.describe()).run_id == run:
            await asyncio.sleep(0.05)
    await people.complete(task["id"], YES)
    outcome = Outcome(
        task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=task["idempotency_key"]
    )
    if via == "signal":
        route = Route("temporal", {"namespace": "default", "workflow_id": handle.id}, task["idempotency_key"])
        await TemporalEngine(client).deliver(route, outcome)
    assert await result(handle) == [True, []]
    assert len(await people.find(question)) == 1


async def test_equal_questions_are_told_apart_in_the_next_run(
    client: Client, people: People, question: str, via: str
) -> None:
    """One has a key of its own and one has not: neither takes the other's task, whichever is asked first."""
    handle = await start(client, AskNamedAndUnnamed.run, {"task": question, "via": via})
    tasks = await people.find(question, count=2)
    await next_run(handle, AskNamedAndUnnamed.go_on)
    for task in tasks:
        await people.complete(task["id"], {"approved": task["idempotency_key"] == question})
    assert await result(handle) == {"named": True, "unnamed": False}
    assert len(await people.find(question)) == 2


async def test_no_words_are_handed_on(client: Client, people: People, question: str, via: str) -> None:
    """What a run hands on is in a header, which a codec leaves in clear: keys, ids and times, and nothing else."""
    handle = await start(client, AskAcrossRuns.run, {"task": question, "via": via, "payload": {"secret": "4111"}})
    (task,) = await people.find(question)
    await until_parked(handle)
    await next_run(handle, AskAcrossRuns.go_on)
    first = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    (handed_on,) = [payload.data.decode() for payload in first.header.fields.values()]
    assert task["idempotency_key"] in handed_on
    assert question not in handed_on
    assert "4111" not in handed_on
    await handle.cancel()


@pytest.mark.parametrize("then", ["ends", "asks again"])
async def test_a_question_the_next_run_forgets(
    client: Client, people: People, question: str, via: str, then: str
) -> None:
    """Its person is freed when that run ends; and when it fails and is retried, the retry asks afresh."""
    handle = await start(
        client,
        AskThenForget.run,
        {"task": question, "via": via},
        then,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
    )
    if then == "asks again":
        second = (await people.find(question, count=2))[0]
        await people.complete(second["id"], YES)
    assert await result(handle) == {"ends": "ends", "asks again": "yes"}[then]
    assert [task["status"] for task in await people.find(question)][-1] == "cancelled"


async def next_run(handle: WorkflowHandle[Any, Any], signal: Any) -> None:
    """Have it continue as new, once its questions are asked."""
    await until_parked(handle)
    await asyncio.sleep(0.5)
    run = (await handle.describe()).run_id
    await handle.signal(signal)
    async with asyncio.timeout(20):
        while (await handle.describe()).run_id == run:
            await asyncio.sleep(0.05)


async def test_reset_while_waiting(client: Client, people: People, question: str, via: str) -> None:
    """A run that is reset waits on for the same question, and its answer reaches the new run."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_parked(handle)
    await asyncio.sleep(0.5)
    history = (await handle.fetch_history()).events
    completed = [event.event_id for event in history if event.HasField("workflow_task_completed_event_attributes")]
    reset = ResetWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=str(handle.result_run_id)),
        reason="a test",
        workflow_task_finish_event_id=completed[-1],
        request_id=uuid.uuid4().hex,
    )
    await client.workflow_service.reset_workflow_execution(reset)
    current = client.get_workflow_handle(handle.id)
    await until_parked(current)
    await people.complete(task["id"], YES)
    assert await result(current) is True
    assert len(await people.find(question)) == 1


async def test_a_retried_workflow_asks_afresh(client: Client, people: People, question: str, via: str) -> None:
    """The attempt that failed frees its person; the next one has a question of its own."""
    handle = await start(
        client,
        AskAndEnd.run,
        {"task": question, "via": via},
        "fails",
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
    )
    assert await result(handle) == "fails"
    tasks = await people.find(question, count=2)
    assert {task["status"] for task in tasks} == {"cancelled"}


# --- who stops waiting frees the person


@pytest.mark.parametrize("end", ["returns", "fails"])
async def test_a_run_that_ends_frees_the_person(
    client: Client, people: People, question: str, via: str, end: str
) -> None:
    """However a workflow ends with a question open, nobody works for it any more."""
    handle = await start(client, AskAndEnd.run, {"task": question, "via": via}, end)
    if end == "fails":
        with pytest.raises(WorkflowFailureError) as failed:
            await result(handle)
        assert "something else" in str(failed.value.cause)
    else:
        assert await result(handle) == "returns"
    (task,) = await people.find(question)
    assert task["status"] == "cancelled"


async def test_cancelled_workflow_frees_the_person(client: Client, people: People, question: str, via: str) -> None:
    """Cancelling the workflow cancels the task."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await until_parked(handle)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as cancelled:
        await result(handle)
    assert isinstance(cancelled.value.cause, CancelledError)
    assert (await people.task(task["id"]))["status"] == "cancelled"


@pytest.mark.parametrize("end", ["returns", "is cancelled"])
async def test_people_are_freed_while_the_relay_is_away(
    people: People, humans: HumansServer, temporal: TemporalServer, question: str, via: str, end: str
) -> None:
    """Whoever has been asked is freed by the question's key, also when its registration never got through."""
    settings = settings_for(humans, f"http://127.0.0.1:{free_port()}")
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])
    async with Worker(client, task_queue=question, workflows=WORKFLOWS):
        workflow = AskAndEnd.run if end == "returns" else AskUncaught.run
        arguments = ({"task": question, "via": via}, end) if end == "returns" else ({"task": question, "via": via},)
        handle = await start(client, workflow, *arguments, task_queue=question)
        (task,) = await people.find(question)
        if end == "is cancelled":
            await handle.cancel()
            with pytest.raises(WorkflowFailureError):
                await result(handle)
        else:
            await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"


async def test_abandoned_wait_frees_the_person(client: Client, people: People, question: str, via: str) -> None:
    """A coroutine that stops waiting by itself cancels the task, and the workflow goes on."""
    handle = await start(client, AskImpatiently.run, {"task": question, "via": via})
    assert await result(handle) == "went on without an answer"
    (task,) = await people.find(question)
    assert task["status"] == "cancelled"


# --- the far end is down


async def test_worker_down_while_the_answer_comes(
    people: People, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """The answer waits in Temporal for a worker that is away."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])

    def worker() -> Worker:
        return Worker(client, task_queue=question, workflows=WORKFLOWS)

    async with worker():
        handle = await start(client, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
        (task,) = await people.find(question)
        await until_open(relay, task)
    await people.complete(task["id"], YES)
    await relay.wait_for(task["id"], "delivered")
    async with worker():
        assert await result(handle) is True


async def test_worker_killed_while_waiting(
    client: Client,
    people: People,
    relay: RunningRelay,
    temporal: TemporalServer,
    tmp_path: Path,
    question: str,
    via: str,
) -> None:
    """SIGKILL while the workflow waits; another worker goes on with the answer, and acts once."""
    acts = tmp_path / "acts.txt"
    worker = worker_process(temporal, relay, tmp_path, question, acts)
    worker.start()
    handle = await start(client, Ask.run, {"task": question, "via": via}, task_queue=question)
    (task,) = await people.find(question)
    await until_open(relay, task)
    worker.kill()
    await people.complete(task["id"], YES)
    await relay.wait_for(task["id"], "delivered")
    other = worker_process(temporal, relay, tmp_path, question, acts)
    other.start()
    try:
        assert (await result(handle))["approved"] is True
    finally:
        other.stop()
    assert acts.read_text() == f"{handle.id}\n"


def worker_process(temporal: TemporalServer, relay: RunningRelay, folder: Path, queue: str, acts: Path) -> Process:
    settings = relay.settings
    (secret,) = settings.relay_secret
    return Process(
        [sys.executable, "-m", "tests.support.worker", temporal.address, queue, str(acts)],
        folder,
        {
            "AWAITHUMANS_URL": settings.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": settings.token(),
            "AWAITHUMANS_RELAY_URL": relay.url,
            "AWAITHUMANS_RELAY_SECRET": secret.get_secret_value(),
            "PYTHONPATH": str(ROOT),
        },
        log="worker.log",
    )


async def test_temporal_restarted_on_its_own_file(
    people: People, humans: HumansServer, tmp_path: Path, question: str, via: str
) -> None:
    """Temporal stops while a workflow waits, the person answers, Temporal comes back: the answer arrives."""
    server = TemporalServer(tmp_path)
    asker = TemporalAsker(server.address, via)
    async with started(server), running_relay([asker.engine], humans, tmp_path) as relay, asker.ready(relay.settings):
        asked = await asker.ask(question)
        (task,) = await people.find(question)
        await until_open(relay, task)
        server.process.kill()
        await people.complete(task["id"], YES)
        await relay.wait_for(task["id"], "answered")
        await server.start()
        assert (await asyncio.wait_for(asked.told(), 60))["approved"] is True
        assert asker.acts[asked.name] == 1


async def test_a_lost_callback_heals_in_the_worker(
    people: People, humans: HumansServer, temporal: TemporalServer, tmp_path: Path, question: str
) -> None:
    """In activity mode the worker itself looks again: the relay may be gone altogether when the answer comes."""
    asker = TemporalAsker(temporal.address, "activity")
    async with running_relay([TemporalEngine(_nobody)], humans, tmp_path) as relay:
        settings = relay.settings
        client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])
        async with Worker(client, task_queue=question, workflows=WORKFLOWS):
            handle = await start(
                client, AskUncaught.run, {"task": question, "via": asker.via, "recheck": 3}, task_queue=question
            )
            (task,) = await people.find(question)
            await people.complete(task["id"], YES)
            assert await result(handle) is True
            attempts = [
                event
                for event in (await handle.fetch_history()).events
                if event.HasField("activity_task_started_event_attributes")
            ]
            assert attempts[-1].activity_task_started_event_attributes.attempt == 2


@asynccontextmanager
async def skipping_time(humans: HumansServer, folder: Path) -> AsyncGenerator[tuple[WorkflowEnvironment, Client]]:
    """A server on which days take moments, and a client whose worker runs; the relay has no way to the workflows."""
    env = await WorkflowEnvironment.start_time_skipping(test_server_existing_path=tool("temporal-test-server"))
    async with env, running_relay([TemporalEngine(_nobody)], humans, folder) as relay:
        config = env.client.config()
        config["plugins"] = [HumanTasksPlugin(relay.settings)]
        asker = TemporalAsker("")
        asker.client = Client(**config)
        async with asker.worker():
            yield env, asker.client


async def waited_out(env: WorkflowEnvironment, handle: WorkflowHandle[Any, Any], via: str, *times: timedelta) -> Any:
    """The result after so much time, with a moment between each for what happens then.

    This server skips no time while an activity is under way, unless it is told to as often as there are activities,
    besides once for whoever waits for the result.
    """
    waiting = asyncio.create_task(result(handle))
    for under_way, time in enumerate(times if via == "activity" else (), start=1):
        await until_under_way(handle, under_way)
        await asyncio.gather(*(env.sleep(time) for _ in range(under_way)))
    return await waiting


async def until_under_way(handle: WorkflowHandle[Any, Any], count: int) -> None:
    """Until so many activities have been begun, and have left off for somebody else to complete them."""
    async with asyncio.timeout(20):
        while True:
            pending = (await handle.describe()).raw_description.pending_activities
            if sum(each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED for each in pending) == count:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)


async def _nobody() -> Client:
    raise ConnectionError("not in this test")


# --- deadlines


@pytest.mark.parametrize("answered", ["nobody", "at-the-last-moment"])
async def test_thirty_days(
    humans: HumansServer, people: People, tmp_path: Path, question: str, via: str, answered: str
) -> None:
    """After a month without a callback the workflow looks once more: an answer counts; else the task is cancelled."""
    async with skipping_time(humans, tmp_path) as (env, skipped):
        options = {"task": question, "via": via, "timeout_seconds": 30 * 86400, "recheck": 40 * 86400}
        handle = await start(skipped, Ask.run, options)
        with env.auto_time_skipping_disabled():
            (task,) = await people.find(question)
            if answered == "at-the-last-moment":
                await people.complete(task["id"], YES)
        told = await waited_out(env, handle, via, timedelta(days=30, seconds=16))
    if answered == "at-the-last-moment":
        assert told["approved"] is True
    else:
        assert told["error"] == "TaskTimeoutError"
        assert (await people.task(task["id"]))["status"] == "cancelled"


# --- several people


async def test_a_quorum_in_a_workflow(client: Client, people: People, question: str, via: str) -> None:
    """Two say yes; the third is freed."""
    handle = await start(client, AskTwoOfThree.run, question, via)
    tasks = await people.find(question, count=3)
    for task in tasks[:2]:
        await people.complete(task["id"], YES)
    assert await result(handle) == [True, "yes", "yes"]
    assert (await people.task(tasks[2]["id"]))["status"] == "cancelled"


async def test_a_bug_in_a_quorum_cancels_nobody(
    people: HastyPeople, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """The workflow is suspended as it stands; mended, it goes on with the votes it has, and others can still vote."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings)])
    quick = timedelta(seconds=1)  # a worker that has gone is not waited for
    async with Worker(
        client, task_queue=question, workflows=[CountsWrongly], sticky_queue_schedule_to_start_timeout=quick
    ):
        handle = await start(client, "Mended", question, via, task_queue=question)
        tasks = await people.find(question, count=3)
        await until_parked(handle)
        await people.complete(tasks[0]["id"], YES)
        async with asyncio.timeout(20):
            while "aproved" not in str(await failures(handle)):
                await asyncio.sleep(0.1)
    assert [(await people.task(task["id"]))["status"] for task in tasks[1:]] == ["created", "created"]
    async with Worker(client, task_queue=question, workflows=[CountsRightly]):
        await people.complete(tasks[1]["id"], YES)
        assert await result(handle) is True


async def failures(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Why tasks of this workflow have failed."""
    history = (await handle.fetch_history()).events
    return [event.workflow_task_failed_event_attributes.failure.message for event in history]


async def test_an_escalation_in_a_workflow(
    humans: HumansServer, people: People, tmp_path: Path, question: str, via: str
) -> None:
    """Nobody answers for two days: both have been asked, both are freed, and the stated default is the decision."""
    async with skipping_time(humans, tmp_path) as (env, skipped):
        handle = await start(skipped, AskUpTheLadder.run, question, via)
        decision = await waited_out(env, handle, via, timedelta(hours=4, seconds=1), timedelta(days=2))
    assert decision == Decision(approved=False, note="nobody answered")
    tasks = await people.find(question, count=2)
    assert {task["assigned_to_email"] for task in tasks} == {"a@example.com", "b@example.com"}
    assert {task["status"] for task in tasks} == {"cancelled"}


# --- the activity by itself


async def test_the_bare_activity(client: Client, people: People, question: str) -> None:
    """Called without `await_human`: completed from outside, looked for again when that was lost."""
    handle = await start(client, AskBarely.run, question)
    await people.answer(question, YES)
    assert await result(handle) == {"approved": True}
    assert (await people.find(question))[0]["idempotency_key"].startswith(f"temporal:default:{handle.id}:")


async def test_an_answer_for_another_run_completes_nothing_else(client: Client, people: People, question: str) -> None:
    """An activity with an id that Temporal made is answered in its own run only: "1" is something else in another."""
    handle = await start(client, AskBarely.run, question)
    (task,) = await people.find(question)
    foreign = Route(
        "temporal",
        {"namespace": "default", "workflow_id": handle.id, "activity_id": "1", "run_id": str(uuid.uuid4())},
        task["idempotency_key"],
    )
    with pytest.raises(TargetGone):
        await TemporalEngine(client).deliver(
            foreign,
            Outcome(
                task_id="x", status="completed", response={"approved": False}, idempotency_key=task["idempotency_key"]
            ),
        )
    await people.complete(task["id"], YES)
    assert await result(handle) == {"approved": True}


# --- sizes


async def test_a_question_too_large_for_temporal_fails_at_once(client: Client, people: People, via: str) -> None:
    """It says how large it is and what to do, and nobody is asked."""
    name = uuid.uuid4().hex
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskHugely.run, name, via))
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "InvalidTaskError"
    assert "2.0 MB" in str(cause)
    assert "link" in str(cause)
    assert await people.find(name, count=0) == []


async def test_an_answer_too_large_for_temporal_fails_the_wait_at_once(
    client: Client, people: People, question: str, via: str
) -> None:
    """Nobody waits until the deadline for what cannot come; it is no approval, and the answer is on the server."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await people.complete(task["id"], {"approved": True, "note": "x" * 2_200_000})
    told = await result(handle)
    assert told["error"] == "ResponseMissingError"
    assert "2.2 MB" in told["message"]


async def test_an_answer_is_as_large_as_it_is_written(client: Client, people: People, question: str, via: str) -> None:
    """A relay's plain client escapes every character: what counts is what it sends, not what there is to say."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await people.complete(task["id"], {"approved": True, "note": "漢" * 400_000})
    told = await result(handle)
    assert told["error"] == "ResponseMissingError"
    assert "2.4 MB" in told["message"]


async def test_the_scripts_way_of_asking_is_refused(client: Client, question: str) -> None:
    """Whoever takes the core's `await_human` in a workflow is told which one to take."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskLikeAScript.run, question))
    assert "awaithumans_adapters.temporal" in str(failed.value.cause)


# --- what an operator sees


async def test_what_is_waited_for_is_seen(
    client: Client, people: People, humans: HumansServer, question: str, via: str
) -> None:
    """Current details and a query say what a workflow waits for; afterwards, who decided."""
    handle = await start(client, AskSeveral.run, question, via)
    (task,) = await people.find(f"{question}: first?")
    (pending,) = await until_parked(handle)
    assert pending["question"] == f"{question}: first?"
    assert pending["via"] == via
    details = await current_details(handle)
    assert f"Waiting for a person: **{question}: first?**" in details
    if via == "signal":
        assert pending["task_id"] == task["id"]
        assert f"{humans.url}/task?id={task['id']}" in details
    await people.complete(task["id"], YES)
    await people.find(f"{question}: second?")
    async with asyncio.timeout(20):
        while "second?" not in (details := await current_details(handle)):
            await asyncio.sleep(0.05)
    assert f"**{question}: first?** completed by anna@example.com (dashboard), 20" in details
    await handle.cancel()


async def current_details(handle: WorkflowHandle[Any, Any]) -> str:
    return str((await handle.query("__temporal_workflow_metadata")).current_details)
