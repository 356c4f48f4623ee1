"""The relay's side: an outcome becomes a signal, or the result of the activity that waits for it."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.service import RPCError, RPCStatusCode

from awaithumans_adapters.temporal.limits import fitting, readable, size_of
from awaithumans_adapters.temporal.names import ENGINE, SIGNAL, mark_of
from awaithumans_core.engine import TargetGone
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

RPC_TIMEOUT = timedelta(seconds=10)
PYDANTIC = PydanticPayloadConverter()
"""How workers with `HumanTasksPlugin` read what comes, unless they have a converter of their own."""
_GOING_ON = (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)


class TemporalEngine:
    """Wakes the workflow that asked, in whichever namespace it lives.

    Duplicates and early answers are the normal case of the workflow's mailbox and of an activity's id; Temporal keeps
    both for a workflow whose worker is down. An answer that is larger than Temporal carries, or that a worker could not
    decode, is delivered without its content, which fails the wait at once and says why.

    Args:
        client: A connected client, or an async function that connects one; then the relay starts while Temporal is
            still down. With a payload codec or a payload converter of your own, the same one as the workers'.
    """

    name = ENGINE

    def __init__(self, client: Client | Callable[[], Awaitable[Client]]) -> None:
        self._connect = client
        self._clients: dict[str, Client] = {}

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Signal the workflow, or complete the activity the route names.

        Raises:
            TargetGone: the workflow has ended without this answer or never was, or Temporal refuses the answer.
            temporalio.service.RPCError: Temporal is away; later.
        """
        client = await self._client(route.target["namespace"])
        wake = _complete if "activity_id" in route.target else _signal
        try:
            # As this client will write it, and as a worker with the plugin will read it.
            carried = readable(outcome, client.data_converter.payload_converter, PYDANTIC)
            # Completing an activity with more than Temporal takes fails the activity.
            size = size_of(await client.data_converter.encode([carried.value()]))
            await wake(client, route.target, fitting(carried, size))
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND and not _namespace_missing(error):
                raise TargetGone(
                    f"workflow {route.target['workflow_id']!r} in namespace {route.target['namespace']!r} has ended or "
                    "never was"
                ) from error
            if error.status == RPCStatusCode.INVALID_ARGUMENT:
                raise TargetGone(f"Temporal does not take the answer: {error.message}") from error
            raise

    async def orphaned(self, route: Route) -> str | None:
        """Say so when the workflow has ended without closing its question: it was terminated, or its worker died.

        Raises:
            temporalio.service.RPCError: Temporal is away.
        """
        client = await self._client(route.target["namespace"])
        workflow_id = route.target["workflow_id"]
        try:
            asker = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:  # forgotten by Temporal, or by a restart that lost its data
                return None
            raise
        if asker.status is None or asker.status in _GOING_ON:
            return None
        return f"workflow {workflow_id!r} has ended ({asker.status.name.lower()})"

    def asked_by(self, route: Route) -> str:
        """The mark on tasks of the route's workflow."""
        return mark_of(route.target["namespace"], route.target["workflow_id"], route.idempotency_key)

    async def check(self) -> None:
        """Raise when Temporal is away, or not well."""
        client = await self._any_client()
        if not await client.service_client.check_health(timeout=RPC_TIMEOUT):
            raise RuntimeError("Temporal answers that it is not serving")

    async def _client(self, namespace: str) -> Client:
        if namespace not in self._clients:
            base = await self._any_client()
            if namespace != base.namespace:
                config = base.config()
                config["namespace"] = namespace
                self._clients[namespace] = Client(**config)
        return self._clients[namespace]

    async def _any_client(self) -> Client:
        if not self._clients:
            client = self._connect if isinstance(self._connect, Client) else await self._connect()
            self._clients[client.namespace] = client
        return next(iter(self._clients.values()))


async def _signal(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Signal the workflow. One that has ended and was signalled before, by a relay that died then, has the answer."""
    handle = client.get_workflow_handle(target["workflow_id"])
    try:
        await handle.signal(SIGNAL, outcome.value(), rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND or not await _signalled(client, handle, outcome):
            raise


async def _signalled(client: Client, handle: WorkflowHandle[Any, Any], outcome: Outcome) -> bool:
    """Whether the workflow's last run was given this outcome."""
    async for event in handle.fetch_history_events():
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == SIGNAL:
            given = await client.data_converter.decode(signal.input.payloads)
            if outcome.value() in given:
                return True
    return False


async def _complete(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Complete the activity, in the run that is current unless the target names one.

    Temporal takes this between two attempts, too, and while no worker is there. It does not know the activity when it
    has been completed already, was cancelled, or has not been scheduled yet by a run that will ask again and then finds
    the answer on the server: in each case a workflow that goes on has what it needs. One that has ended has taken the
    answer if that activity was completed in it: an attempt finds answers, too.
    """
    workflow_id, run_id = target["workflow_id"], target.get("run_id")
    waiting = client.get_async_activity_handle(
        workflow_id=workflow_id, run_id=run_id, activity_id=target["activity_id"]
    )
    try:
        await waiting.complete(outcome.value(), rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        asker = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        if asker.status == WorkflowExecutionStatus.RUNNING:
            pending = {activity.activity_id for activity in asker.raw_description.pending_activities}
            if target["activity_id"] in pending:
                raise
        elif not await _completed(handle, target["activity_id"]):
            raise


async def _completed(handle: WorkflowHandle[Any, Any], activity_id: str) -> bool:
    """Whether the run has a result of this activity."""
    scheduled: set[int] = set()
    async for event in handle.fetch_history_events():
        if event.activity_task_scheduled_event_attributes.activity_id == activity_id:
            scheduled.add(event.event_id)
        if event.activity_task_completed_event_attributes.scheduled_event_id in scheduled:
            return True
    return False


def _namespace_missing(error: RPCError) -> bool:
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)
