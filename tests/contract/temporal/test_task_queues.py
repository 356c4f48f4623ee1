"""Separate workers for workflows and activities, in both modes."""

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
    """Return the activities that a run has scheduled."""
    events = (await handle.fetch_history()).events
    return [
        event.activity_task_scheduled_event_attributes
        for event in events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


@pytest.fixture
async def split(relay: RunningRelay, temporal: TemporalServer, question: str) -> AsyncGenerator[Client]:
    """Yield a client with one worker for workflows, on the queue `question`, and one for activities.

    Only the second worker has settings; the first registers no activity.
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


async def test_activities_run_on_the_queue_of_their_worker(
    split: Client, people: People, question: str, via: str
) -> None:
    """The workflow schedules every activity on the queue and with the options of its worker's plugin."""
    handle = await start(split, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
    await people.answer(question, {"approved": True})
    assert await result(handle) is True
    (asked,) = await scheduled(handle)
    assert asked.task_queue.name == f"{question} people"
    assert asked.priority.priority_key == 2
    assert asked.retry_policy.initial_interval.ToTimedelta() == timedelta(seconds=2)
    if via == "signal":
        assert asked.start_to_close_timeout.ToTimedelta() == timedelta(seconds=40)


async def test_question_with_its_own_queue_keeps_other_plugin_options(
    split: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """A question may set its own queue; all other options are those of the plugin."""
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


async def test_inherited_question_is_closed_on_its_own_queue(
    split: Client, people: People, relay: RunningRelay, question: str, via: str
) -> None:
    """A run that inherits a question but does not ask it closes it on the queue of the question."""
    plugin = HumanTasksActivityPlugin(relay.settings)
    async with Worker(split, task_queue=f"{question} finance", plugins=[plugin]):
        options = {"task": question, "via": via}
        handle = await start(split, AskOnQueue.run, options, f"{question} finance", "ends", task_queue=question)
        assert await result(handle) is None
    (freed,) = await scheduled(split.get_workflow_handle(handle.id))
    assert freed.task_queue.name == f"{question} finance"


async def test_inherited_question_without_a_queue_is_closed_on_the_plugins(
    split: Client, people: People, question: str, via: str
) -> None:
    """A question without its own queue is closed on the queue of the plugin."""
    options = {"task": question, "via": via}
    handle = await start(split, AskThenForget.run, options, "ended", task_queue=question)
    assert await result(handle) == "ended"
    (freed,) = await scheduled(split.get_workflow_handle(handle.id))
    assert freed.task_queue.name == f"{question} people"
