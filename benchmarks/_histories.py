"""Facts from a workflow's history: its size, its billed actions, and the times and failures of events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle, WorkflowHistory

BILLED: Mapping["EventType.ValueType", Callable[[HistoryEvent], int]] = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: lambda _: 1,
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: lambda event: event.activity_task_started_event_attributes.attempt,
    EventType.EVENT_TYPE_TIMER_STARTED: lambda _: 1,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: lambda _: 1,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: lambda _: 1,
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED: lambda _: 1,
    EventType.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED: lambda _: 1,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW: lambda _: 1,
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: lambda _: 1,
    EventType.EVENT_TYPE_MARKER_RECORDED: lambda _: 1,
}
"""Actions, as Temporal Cloud counts them, by event type. The start event of an activity has the number of attempts."""


@dataclass(frozen=True)
class HistorySize:
    """Size of one workflow's history."""

    events: int
    bytes: int
    """History size as the server reports it."""
    event_bytes: int
    """Sum of the events' serialized sizes."""
    actions: int


async def history_size(handle: WorkflowHandle[Any, Any], history: WorkflowHistory) -> HistorySize:
    described = await handle.describe()
    return HistorySize(
        events=len(history.events),
        bytes=described.raw_description.workflow_execution_info.history_size_bytes,
        event_bytes=sum(event.ByteSize() for event in history.events),
        actions=sum(BILLED[event.event_type](event) for event in history.events if event.event_type in BILLED),
    )


def first_event_time(history: WorkflowHistory, event_type: "EventType.ValueType") -> float | None:
    """Return the time of the first event of this type, or None if there is none."""
    for event in history.events:
        if event.event_type == event_type:
            return event.event_time.seconds + event.event_time.nanos / 1e9
    return None


def failed_workflow_task(history: WorkflowHistory) -> bool:
    """Return whether a workflow task failed, for instance with TMPRL1101 because it took longer than two seconds."""
    return any(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED for event in history.events)
