"""The relay's side: an outcome becomes a signal, or the result of the activity that waits for it."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.service import RPCError, RPCStatusCode

from awaithumans_adapters.temporal.limits import fitting, readable, size_of
from awaithumans_adapters.temporal.names import ASSIGNEES, AWAIT_HUMAN, ENGINE, SIGNAL, mark_of
from awaithumans_adapters.temporal.signal_once import signalling_once
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

RPC_TIMEOUT = timedelta(seconds=10)
EVENTS_AT_ONCE = 8
"""Events of a history that are held in memory at a time. One may have 2 MB."""
PYDANTIC = PydanticPayloadConverter()
"""How workers with `HumanTasksPlugin` read what comes, unless they have a converter of their own."""
_GOING_ON = (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)


class TemporalEngine:
    """Wakes the workflow that asked, in the namespaces it is configured for.

    A route may name any workflow and any activity. So only our signal is sent, only activities of our own type are
    completed, and no namespace is touched that is not configured.

    Duplicates and early answers are the normal case of the workflow's mailbox and of an activity's id; Temporal keeps
    both for a workflow whose worker is down. An answer that is larger than Temporal carries, or that a worker could not
    decode, is delivered without its content, which fails the wait at once and says why.

    Args:
        client: A connected client, or an async function that connects one; then the relay starts while Temporal is
            still down. With a payload codec or a payload converter of your own, the same one as the workers'.
        namespaces: The only namespaces that answers may go to. Default: the client's own.

    Raises:
        SettingsError: `namespaces` is empty, or a single string.
    """

    name = ENGINE

    def __init__(
        self, client: Client | Callable[[], Awaitable[Client]], *, namespaces: Collection[str] | None = None
    ) -> None:
        if namespaces is not None and (not namespaces or isinstance(namespaces, str)):
            raise SettingsError(
                f"namespaces={namespaces!r}: give a list of names, or leave it out for the client's own"
            )
        self._connect = client
        self._namespaces = namespaces
        self._connected: Client | None = None
        self._clients: dict[str, Client] = {}

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Signal the workflow, or complete the activity the route names.

        Raises:
            TargetGone: the workflow has ended without this answer or never was, Temporal refuses the answer, or the
                route names a namespace that is not configured or an activity that is not ours.
            TargetNotReady: the activity could not be completed at this moment; later.
            temporalio.service.RPCError: Temporal is away; later.
        """
        client = await self._client(route)
        wake = _wakes(route.target)
        try:
            # As this client will write it, and as a worker with the plugin will read it.
            carried = readable(outcome, client.data_converter.payload_converter, PYDANTIC)
            # Completing an activity with more than Temporal takes fails the activity.
            size = size_of(await client.data_converter.encode([carried.value()]))
            await wake(client, route.target, fitting(carried, size))
        except RPCError as error:
            if _unknown(error):
                raise TargetGone(_ended(route.target)) from error
            if error.status == RPCStatusCode.INVALID_ARGUMENT:
                raise TargetGone(f"Temporal does not take the answer: {error.message}") from error
            raise

    async def has_answer(self, route: Route) -> bool:
        """Whether a caller that was given its answer needs it no second time; see `SeesAnswers`.

        A workflow that has ended takes nothing, and an activity that is not pending was completed, or is started again
        and then registers again. A running workflow that waits for a signal is given it again, which Temporal drops if
        this run has it.

        Raises:
            TargetGone: the route names a namespace that is not configured.
            temporalio.service.RPCError: Temporal is unreachable; later.
        """
        client = await self._client(route)
        if is_standalone(route.target):
            return not await _runs_alone(client, route.target)
        try:
            caller = await _handle(client, route.target).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if _unknown(error):
                return True
            raise
        if caller.status != WorkflowExecutionStatus.RUNNING:
            return True
        activity_id = route.target.get("activity_id")
        return activity_id is not None and _pending(caller, activity_id) is None

    async def orphaned(self, route: Route) -> str | None:
        """Say so when the workflow has ended without closing its question: it was terminated, or its worker died.

        Raises:
            temporalio.service.RPCError: Temporal is away.
        """
        if is_standalone(route.target):
            return await self._orphaned_alone(route)
        workflow_id = route.target["workflow_id"]
        try:
            client = await self._client(route)
            asker = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        except TargetGone:  # of a namespace that is not configured nothing is known
            return None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:  # forgotten by Temporal, or by a restart that lost its data
                return None
            raise
        if asker.status is None or asker.status in _GOING_ON:
            return None
        return f"workflow {workflow_id!r} has ended ({asker.status.name.lower()})"

    async def _orphaned_alone(self, route: Route) -> str | None:
        """`orphaned`, of an activity without a workflow."""
        from awaithumans_adapters.temporal.standalone import status_of

        try:
            status = await status_of(await self._client(route), route.target, RPC_TIMEOUT)
        except TargetGone:
            return None
        if status is None or status.name == "RUNNING":
            return None
        return f"activity {route.target['activity_id']!r} has ended ({status.name.lower()})"

    def asked_by(self, route: Route) -> str:
        """The mark on tasks of the route's workflow."""
        if is_standalone(route.target):
            return route.digest
        return mark_of(route.target["namespace"], route.target["workflow_id"], route.idempotency_key)

    async def check(self) -> None:
        """Raise when Temporal is away, or not well."""
        client = await self._any_client()
        if not await client.service_client.check_health(timeout=RPC_TIMEOUT):
            raise RuntimeError("Temporal answers that it is not serving")

    async def remark(self) -> str:
        """Whether workflows can be listed by assignee, for `awaithumans-relay doctor`."""
        client = await self._any_client()
        try:
            found = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=client.namespace), timeout=RPC_TIMEOUT
            )
        except RPCError as refused:  # Temporal Cloud has another API for them
            return f"search attribute {ASSIGNEES}: unknown, as they cannot be listed ({refused.status.name.lower()})"
        kind = found.custom_attributes.get(ASSIGNEES)
        if kind == IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST:
            return f"search attribute {ASSIGNEES} exists"
        create = f"temporal operator search-attribute create --name {ASSIGNEES} --type KeywordList"
        if kind is None:
            return f"search attribute {ASSIGNEES} is missing; before workers use list_assignees=True: {create}"
        raise SettingsError(
            f"search attribute {ASSIGNEES} is a {IndexedValueType.Name(kind)}, not a KeywordList: remove it, then "
            f"{create}"
        )

    async def _client(self, route: Route) -> Client:
        """The client for the route's namespace. Raises TargetGone if that is not configured."""
        base, namespace = await self._any_client(), route.target["namespace"]
        allowed = {base.namespace} if self._namespaces is None else set(self._namespaces)
        if namespace not in allowed:
            raise TargetGone(
                f"namespace {namespace!r} is not configured for this relay (configured: {', '.join(sorted(allowed))}): "
                "add it with --temporal-namespace or TemporalEngine(namespaces=[...]), then redrive"
            )
        if namespace not in self._clients:
            self._clients[namespace] = signalling_once(base, namespace)
        return self._clients[namespace]

    async def _any_client(self) -> Client:
        if self._connected is None:
            self._connected = self._connect if isinstance(self._connect, Client) else await self._connect()
        return self._connected


def is_standalone(target: Mapping[str, str]) -> bool:
    """Whether a route leads to an activity that was started without a workflow."""
    return "workflow_id" not in target


def _wakes(target: Mapping[str, str]) -> Callable[[Client, Mapping[str, str], Outcome], Awaitable[None]]:
    """How the caller of a route is given its answer."""
    if is_standalone(target):
        return _complete_alone
    return _complete if "activity_id" in target else _signal


async def _complete_alone(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Complete an activity that was started without a workflow."""
    from awaithumans_adapters.temporal.standalone import complete_standalone  # needs a newer SDK than the rest

    await complete_standalone(client, target, outcome, RPC_TIMEOUT)


async def _runs_alone(client: Client, target: Mapping[str, str]) -> bool:
    from awaithumans_adapters.temporal.standalone import status_of

    status = await status_of(client, target, RPC_TIMEOUT)
    return status is not None and status.name == "RUNNING"


async def _signal(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Signal the workflow's current run. Temporal drops the signal, and reports no error, if this run has it."""
    await client.get_workflow_handle(target["workflow_id"]).signal(SIGNAL, outcome.value(), rpc_timeout=RPC_TIMEOUT)


async def _complete(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Complete the activity, in the run that is current unless the target names one.

    Temporal takes this between two attempts, too, and while no worker is there. An activity that is not pending was
    completed already or cancelled, or has not been scheduled yet by a run that will ask again and then finds the answer
    on the server: in each case a workflow that goes on has what it needs. One that has ended has taken the answer if
    that activity was completed in it: an attempt finds answers, too.
    """
    activity_id, handle = target["activity_id"], _handle(client, target)
    caller = await handle.describe(rpc_timeout=RPC_TIMEOUT)
    if (found := _pending(caller, activity_id)) is not None:
        if found.activity_type.name != AWAIT_HUMAN:
            raise TargetGone(
                f"activity {activity_id!r} of workflow {target['workflow_id']!r} has the type "
                f"{found.activity_type.name!r}; only {AWAIT_HUMAN!r} is completed with an answer"
            )
        # In the run in which its type was seen.
        waiting = client.get_async_activity_handle(workflow_id=caller.id, run_id=caller.run_id, activity_id=activity_id)
        try:
            await waiting.complete(outcome.value(), rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if not _unknown(error):
                raise
            caller = await handle.describe(rpc_timeout=RPC_TIMEOUT)
            if _pending(caller, activity_id) is not None:
                raise TargetNotReady(f"activity {activity_id!r} is pending and could not be completed") from error
        else:
            return
    if caller.status != WorkflowExecutionStatus.RUNNING and not await _completed(handle, activity_id):
        raise TargetGone(_ended(target))


async def _completed(handle: WorkflowHandle[Any, Any], activity_id: str) -> bool:
    """Whether the run has a result of this activity, if it is ours."""
    scheduled: set[int] = set()
    async for event in handle.fetch_history_events(page_size=EVENTS_AT_ONCE):
        task = event.activity_task_scheduled_event_attributes
        if task.activity_id == activity_id and task.activity_type.name == AWAIT_HUMAN:
            scheduled.add(event.event_id)
        if event.activity_task_completed_event_attributes.scheduled_event_id in scheduled:
            return True
    return False


def _handle(client: Client, target: Mapping[str, str]) -> WorkflowHandle[Any, Any]:
    return client.get_workflow_handle(target["workflow_id"], run_id=target.get("run_id"))


def _pending(caller: WorkflowExecutionDescription, activity_id: str) -> PendingActivityInfo | None:
    """The activity, if it is waiting for its result. Temporal bounds how many a workflow may have."""
    if caller.status != WorkflowExecutionStatus.RUNNING:  # a terminated workflow still lists them
        return None
    pending = caller.raw_description.pending_activities
    return next((activity for activity in pending if activity.activity_id == activity_id), None)


def _ended(target: Mapping[str, str]) -> str:
    return f"workflow {target['workflow_id']!r} in namespace {target['namespace']!r} has ended or never was"


def _unknown(error: RPCError) -> bool:
    """Whether Temporal does not know the workflow or the activity, in a namespace that it knows."""
    return error.status == RPCStatusCode.NOT_FOUND and not any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details
    )
