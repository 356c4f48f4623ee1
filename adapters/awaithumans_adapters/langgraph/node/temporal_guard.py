"""A graph inside a Temporal workflow is kept by Temporal: nothing resumes a thread there.

Temporal need not be installed: where it has not been imported, nothing runs in it.
"""

import sys

from awaithumans_core.errors import SettingsError

INSTEAD = (
    "this graph runs inside a Temporal workflow, where LangGraph's await_human cannot be resumed: give the node "
    "metadata={'execute_in': 'workflow'} and call await_human of awaithumans_adapters.temporal in it"
)


def refuse_in_workflow() -> None:
    """Raise in the code of a workflow.

    Raises:
        SettingsError: always there.
    """
    if "temporalio.workflow" not in sys.modules:
        return
    from temporalio import workflow

    if workflow.in_workflow():
        raise SettingsError(INSTEAD)


def refuse_in_activity() -> None:
    """Raise in an activity; for a graph that cannot be resumed, since an activity may run one of its own that can.

    Raises:
        ApplicationError: of the type `SettingsError`, and not tried again, as any other error of an activity would be.
    """
    if "temporalio.activity" not in sys.modules:
        return
    from temporalio import activity
    from temporalio.exceptions import ApplicationError

    if activity.in_activity():
        raise ApplicationError(INSTEAD, type=SettingsError.__name__, non_retryable=True)
