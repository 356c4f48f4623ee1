"""Activities that a client starts by themselves, without a workflow, and that wait for a person.

Their route names no workflow. The caller is identified by the activity's id and run id. They need a Temporal server and
an SDK that support standalone activities.
"""

from collections.abc import Mapping
from datetime import timedelta

from temporalio import activity
from temporalio.client import ActivityExecutionStatus, Client
from temporalio.converter import ActivitySerializationContext, PayloadConverter
from temporalio.service import RPCError, RPCStatusCode

from awaithumans_adapters.temporal.limits import carried
from awaithumans_adapters.temporal.names import AWAIT_HUMAN
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.outcome import Outcome


def standalone_target(info: activity.Info) -> dict[str, str]:
    """Return the target of the route to the running standalone activity."""
    return {"namespace": info.namespace, "activity_id": info.activity_id, "run_id": str(info.activity_run_id)}


async def status_of(client: Client, target: Mapping[str, str], timeout: timedelta) -> ActivityExecutionStatus | None:
    """Return the activity's status, or None if Temporal does not know it.

    Raises:
        TargetGone: the activity is of another type, and not completed by this package.
        temporalio.service.RPCError: Temporal is unreachable. Deliver later.
    """
    handle = client.get_activity_handle(target["activity_id"], run_id=target["run_id"])
    try:
        found = await handle.describe(rpc_timeout=timeout)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise
    if found.activity_type != AWAIT_HUMAN:
        raise TargetGone(
            f"activity {target['activity_id']!r} has the type {found.activity_type!r}; only {AWAIT_HUMAN!r} is "
            "completed with an answer"
        )
    return found.status


async def complete_standalone(
    client: Client, target: Mapping[str, str], outcome: Outcome, reader: PayloadConverter, timeout: timedelta
) -> None:
    """Complete the activity with what Temporal can carry of the outcome.

    An activity that is already completed is left as is.

    Raises:
        TargetGone: it has ended without the answer, or never existed.
        TargetNotReady: it could not be completed at this moment. Deliver later.
    """
    status = await status_of(client, target, timeout)
    if status == ActivityExecutionStatus.RUNNING:
        waiting = client.get_async_activity_handle(activity_id=target["activity_id"], run_id=target["run_id"])
        context = ActivitySerializationContext(
            namespace=client.namespace,
            activity_id=target["activity_id"],
            activity_type=AWAIT_HUMAN,
            activity_task_queue=None,
            workflow_id=None,
            workflow_type=None,
            is_local=False,
        )
        answer = await carried(outcome, client.data_converter, context, reader)
        try:
            await waiting.with_context(context).complete(answer.value(), rpc_timeout=timeout)
        except RPCError as error:
            if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                raise
            status = await status_of(client, target, timeout)
            if status == ActivityExecutionStatus.RUNNING:
                raise TargetNotReady(f"activity {target['activity_id']!r} could not be completed") from error
        else:
            return
    if status != ActivityExecutionStatus.COMPLETED:
        raise TargetGone(f"activity {target['activity_id']!r} has ended or never was")
