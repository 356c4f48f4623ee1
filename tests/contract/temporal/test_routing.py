"""Workers of their own for workflows and for activities, in both modes."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest
from devservers import TemporalServer
from temporalio.api.history.v1 import ActivityTaskScheduledEventAttributes
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import Priority, RetryPolicy
from temporalio.worker import Worker

from awaithumans_adapters.temporal import ActivityOptions, HumanTasksActivityPlugin, HumanTasksWorkflowPlugin
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import result, start, until_open
from tests.support.workflows import WORKFLOWS, AskOnQueue, AskThenForget, AskUncaught

pytestmark = pytest.mark.edges
RETRY = RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(seconds=4))


async def scheduled(handle: WorkflowHandle[Any, Any]) -> list[ActivityTaskScheduledEventAttributes]:
    """The activities that a run has scheduled."""
    events = (await handle.fetch_history()).events
    return [
        event.activity_task_scheduled_event_attributes
        for event in events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


@pytest.fixture
async def split(relay: RunningRelay, temporal: TemporalServer, question: str) -> AsyncGenerator[Client]:
    """A client with a worker for workflows, on the queue named as the question, and one for activities, on `people`.

    Nothing else but the second has settings; the first registers no activity.
    """
    client = await Client.connect(temporal.address)
    options = ActivityOptions(
        task_queue=f"{question} people",
        start_to_close_timeout=timedelta(seconds=40),
        retry_policy=RETRY,
        priority=Priority(priority_key=2),
    )
    workflows = Worker(
        client, task_queue=question, workflows=WORKFLOWS, plugins=[HumanTasksWorkflowPlugin(activities=options)]
    )
    activities = Worker(client, task_queue=f"{question} people", plugins=[HumanTasksActivityPlugin(relay.settings)])
    async with workflows, activities:
        yield client


async def test_workers_of_their_own(split: Client, people: People, question: str, via: str) -> None:
    """The workflow's worker schedules every activity on the other worker's queue, with the options of its plugin."""
    handle = await start(split, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
    await people.answer(question, {"approved": True})
    assert await result(handle) is True
    (asked,) = await scheduled(handle)
    assert asked.task_queue.name == f"{question} people"
    assert asked.priority.priority_key == 2
    assert asked.retry_policy.initial_interval.ToTimedelta() == timedelta(seconds=2)
    if via == "signal":
        assert asked.start_to_close_timeout.ToTimedelta() == timedelta(seconds=40)


async def test_one_question_on_another_queue(
    split: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """A question may have a queue of its own; what is not chosen for it is as the plugin has it."""
    plugin = HumanTasksActivityPlugin(relay.settings)
    async with Worker(split, task_queue=f"{question} finance", plugins=[plugin]):
        options = {"task": question, "via": via}
        handle = await start(split, AskOnQueue.run, options, f"{question} finance", task_queue=question)
        (task,) = await people.find(question)
        await until_open(relay, task)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await result(handle)
    assert (await people.task(task["id"]))["status"] == "cancelled"
    asked, freed = await scheduled(handle)
    assert {each.task_queue.name for each in (asked, freed)} == {f"{question} finance"}
    assert {each.priority.priority_key for each in (asked, freed)} == {2}


async def test_queue_of_a_question_in_the_next_run(
    split: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """A run that inherits a question and does not ask it closes it on the question's own queue."""
    plugin = HumanTasksActivityPlugin(relay.settings)
    async with Worker(split, task_queue=f"{question} finance", plugins=[plugin]):
        options = {"task": question, "via": via}
        handle = await start(split, AskOnQueue.run, options, f"{question} finance", "ends", task_queue=question)
        assert await result(handle) is None
    (freed,) = await scheduled(split.get_workflow_handle(handle.id))
    assert freed.task_queue.name == f"{question} finance"


async def test_queue_of_the_worker_in_the_next_run(split: Client, people: People, question: str, via: str) -> None:
    """A question without a queue of its own is closed as the plugin has it."""
    options = {"task": question, "via": via}
    handle = await start(split, AskThenForget.run, options, "ended", task_queue=question)
    assert await result(handle) == "ended"
    (freed,) = await scheduled(split.get_workflow_handle(handle.id))
    assert freed.task_queue.name == f"{question} people"
