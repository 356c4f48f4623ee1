"""Finds out from its history whether a workflow that has ended took an answer.

An answer reaches a workflow in several ways: the relay's signal or completion, an attempt of an activity that finds it
on the server, or a later run that continued the question. When the relay delivers the answer, the workflow may have
ended because of that very answer, and nothing is lost.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.client import Client

from awaithumans_adapters.temporal.names import AWAIT_HUMAN, HEADER, LAST_LOOK, OPEN_WAIT, SIGNAL, place_of
from awaithumans_core.outcome import Outcome

EVENTS_AT_ONCE = 8
"""Number of history events per reply. One event may have 2 MB."""
MAX_RUNS = 20
"""Maximum number of runs that are read, because a workflow may continue as new without end."""

_BRINGS_ANSWERS = {AWAIT_HUMAN, OPEN_WAIT, LAST_LOOK}


async def has_taken(client: Client, target: Mapping[str, str], outcome: Outcome, rpc_timeout: timedelta) -> bool:
    """Whether the last run of the workflow, or one before it back to the run that the target names, took this outcome.

    A run has taken it if the outcome is in its history, a workflow task has run since, and the run did not hand the
    question on to the next run as one that is still open.

    Raises:
        temporalio.service.RPCError: Temporal is unreachable, or has no such workflow.
    """
    run_id: str | None = None
    handed_on = False
    for _ in range(MAX_RUNS):
        run = client.get_workflow_handle(target["workflow_id"], run_id=run_id)
        activities: set[int] = set()
        began = WorkflowExecutionStartedEventAttributes()
        came_at = last_task = 0
        async for event in run.fetch_history_events(page_size=EVENTS_AT_ONCE, rpc_timeout=rpc_timeout):
            if event.HasField("workflow_execution_started_event_attributes"):
                began = event.workflow_execution_started_event_attributes
            if event.activity_task_scheduled_event_attributes.activity_type.name in _BRINGS_ANSWERS:
                activities.add(event.event_id)
            last_task = max(last_task, event.workflow_task_completed_event_attributes.started_event_id)
            completed = event.activity_task_completed_event_attributes
            signal = event.workflow_execution_signaled_event_attributes
            brought = None
            if completed.scheduled_event_id in activities:
                brought = completed.result
            elif signal.signal_name == SIGNAL:
                brought = signal.input
            if brought is not None and not came_at and await _is_same_end(outcome, client, brought):
                came_at = event.event_id
        if 0 < came_at < last_task and not handed_on:
            return True
        before = began.continued_execution_run_id
        if not before or run_id == target.get("run_id", ""):
            return False
        # A retried run has the header of the first attempt.
        handed_on = began.attempt <= 1 and await _was_open(outcome, client, began)
        run_id = before
    return False


async def _is_same_end(outcome: Outcome, client: Client, payloads: Payloads) -> bool:
    value = await _read(client, payloads.payloads)
    try:
        recorded = Outcome.model_validate({"status": "created"} | value)
    except ValidationError:  # recorded by another release
        return False
    key = recorded.idempotency_key or outcome.idempotency_key
    same = (recorded.task_id, recorded.status, key) == (outcome.task_id, outcome.status, outcome.idempotency_key)
    # If the server had already erased the response, the workflow could not have taken it.
    return same and recorded.terminal and (recorded.answered or not outcome.answered)


async def _was_open(outcome: Outcome, client: Client, began: WorkflowExecutionStartedEventAttributes) -> bool:
    """Whether the run that began with this event was handed the question of this outcome by the previous run."""
    handed_on = await _read(client, [began.header.fields[HEADER]] if HEADER in began.header.fields else [])
    try:
        keys = [str((held["waiting"] or held)["key"]) for held in handed_on.get("asked", ())]
    except (KeyError, TypeError):  # recorded by another release
        return False
    place = place_of(outcome.idempotency_key or "")
    return any(place == place_of(key) or place.startswith(f"{place_of(key)}:reask:") for key in keys)


async def _read(client: Client, payloads: Sequence[Payload]) -> dict[str, Any]:
    """Return the one JSON object in these payloads. Empty if it cannot be decoded, for instance without its codec."""
    try:
        (value,) = await client.data_converter.decode(payloads, [dict[str, Any]])
    except Exception:
        return {}
    return dict(value)
