"""Refuses `await_human` of LangGraph in a graph that runs inside Temporal, where no thread is ever resumed.

A graph inside a workflow is made durable by Temporal and not by a checkpointer. Temporal need not be installed: if it
was never imported, no code runs in it.
"""

import sys

from awaithumans_core.errors import SettingsError

INSTEAD = (
    "this graph runs inside a Temporal workflow, where LangGraph's await_human cannot be resumed: give the node "
    "metadata={'execute_in': 'workflow'} and call await_human of awaithumans_adapters.temporal in it"
)


def refuse_in_workflow() -> None:
    """Raise if called in the code of a Temporal workflow.

    Raises:
        SettingsError: the code runs in a workflow.
    """
    if "temporalio.workflow" not in sys.modules:
        return
    from temporalio import workflow

    if workflow.in_workflow():
        raise SettingsError(INSTEAD)


def refuse_in_activity() -> None:
    """Raise if called in a Temporal activity. Call it only for a graph that cannot be resumed.

    An activity may run a graph of its own that can be resumed, and there `await_human` works.

    Raises:
        ApplicationError: the code runs in an activity. The type is `SettingsError`, and the error is marked as
            non-retryable, because Temporal retries an activity after any other error.
    """
    if "temporalio.activity" not in sys.modules:
        return
    from temporalio import activity
    from temporalio.exceptions import ApplicationError

    if activity.in_activity():
        raise ApplicationError(INSTEAD, type=SettingsError.__name__, non_retryable=True)
