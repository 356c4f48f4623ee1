"""Whether a workflow that has ended took an answer, as its history tells.

An answer reaches a workflow in several ways: the relay's signal or completion, an attempt of an activity that finds it
on the server, or a later run that went on with the question. When the relay comes with it, the workflow may have ended
because of that very answer, and nothing is lost.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payloads
from temporalio.client import Client

from awaithumans_adapters.temporal.names import AWAIT_HUMAN, LAST_LOOK, OPEN_WAIT, SIGNAL
from awaithumans_core.outcome import Outcome

EVENTS_AT_ONCE = 8
"""Of a history, in one reply. One may have 2 MB."""
MAX_RUNS = 20
"""Runs that are read at most: a workflow may continue as new without end."""

_BRINGS_ANSWERS = {AWAIT_HUMAN, OPEN_WAIT, LAST_LOOK}


async def has_taken(client: Client, target: Mapping[str, str], outcome: Outcome, rpc_timeout: timedelta) -> bool:
    """Whether the last run of the workflow, or one before it back to the run that the target names, has this end.

    Raises:
        temporalio.service.RPCError: Temporal is unreachable, or has no such workflow.
    """
    run_id: str | None = None
    for _ in range(MAX_RUNS):
        run = client.get_workflow_handle(target["workflow_id"], run_id=run_id)
        activities: dict[int, str] = {}
        before = ""
        async for event in run.fetch_history_events(page_size=EVENTS_AT_ONCE, rpc_timeout=rpc_timeout):
            before = before or event.workflow_execution_started_event_attributes.continued_execution_run_id
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name in _BRINGS_ANSWERS:
                activities[event.event_id] = scheduled.activity_id
            completed = event.activity_task_completed_event_attributes
            activity_id = activities.get(completed.scheduled_event_id)
            if activity_id is not None and activity_id == target.get("activity_id"):
                return True
            signal = event.workflow_execution_signaled_event_attributes
            if activity_id is not None and await _is_same_end(outcome, client, completed.result):
                return True
            if signal.signal_name == SIGNAL and await _is_same_end(outcome, client, signal.input):
                return True
        if not before or run_id == target.get("run_id", ""):
            return False
        run_id = before
    return False


async def _is_same_end(outcome: Outcome, client: Client, payloads: Payloads) -> bool:
    try:
        (value,) = await client.data_converter.decode(payloads.payloads, [dict[str, Any]])
        recorded = Outcome.model_validate({"status": "created"} | value)
    except Exception:  # of another release, or encoded in a way that this relay cannot decode
        return False
    same = (recorded.task_id, recorded.idempotency_key) == (outcome.task_id, outcome.idempotency_key)
    return recorded.terminal and same
