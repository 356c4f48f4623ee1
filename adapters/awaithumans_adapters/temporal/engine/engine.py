"""The Temporal engine of the relay: an outcome becomes a signal, or the result of the activity that waits for it."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, cast

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import ActivitySerializationContext, WorkflowSerializationContext
from temporalio.service import RPCError, RPCStatusCode

from awaithumans_adapters.temporal.engine.connection_check import check_access, check_codec, setting_behind
from awaithumans_adapters.temporal.engine.ended_workflows import has_taken
from awaithumans_adapters.temporal.engine.signals import signalling_once
from awaithumans_adapters.temporal.limits import carried
from awaithumans_adapters.temporal.names import ASSIGNEES, AWAIT_HUMAN, ENGINE, OWN_ACTIVITY, SIGNAL, mark_of
from awaithumans_core.engine import RelayNotReady, TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.temporal")

Connection = Client | Callable[[], Awaitable[Client]]
"""A connected client, or an async function that connects one."""

RPC_TIMEOUT = timedelta(seconds=10)
PYDANTIC = PydanticPayloadConverter()
"""Converter with which workers with `HumanTasksPlugin` read answers, unless they have a converter of their own."""
_ENDED = frozenset(WorkflowExecutionStatus) - {
    WorkflowExecutionStatus.RUNNING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW,
}
"""Statuses after which no later run takes the answer.

A workflow with a status that the SDK does not know, such as paused, does not count as ended.
"""
_CLOSED = _ENDED | {WorkflowExecutionStatus.CONTINUED_AS_NEW}
"""Statuses in which this run takes no more answers."""


class TemporalEngine:
    """Wakes the workflow that asked, in the namespaces it is configured for.

    A route may name any workflow and any activity. So only this package's signal is sent, only activities of its own
    type are completed, and only configured namespaces are accessed.

    The workflow's mailbox and the activity's id make duplicates and early answers harmless. Temporal keeps both kinds
    of delivery for a workflow whose worker is down. An answer that is larger than Temporal can carry, or that a worker
    could not decode, is delivered without its content, which fails the wait at once with the reason.

    An answer is encoded as its caller encodes its payloads: the route states whether the caller has a payload codec.
    The answer to an encoding caller waits until the client has the codec. The answer to a caller without codec is
    written without it. For a route that does not state it (its worker is of an earlier release), the client's own codec
    decides.

    Args:
        client: A connected client, or an async function that connects one, so that the relay can start while Temporal
            is still down. Or a mapping from each namespace to such a client of its own, with its own address, TLS and
            API key. A payload codec or payload converter of your own must be the same one as the workers'.
        namespaces: The only namespaces that answers may go to, all through one client. Default: the client's own, or
            those of the mapping.

    Raises:
        SettingsError: `namespaces` is empty, a single string, holds an empty name, or is given together with a mapping;
            or the mapping is empty.
    """

    name = ENGINE

    def __init__(
        self, client: Connection | Mapping[str, Connection], *, namespaces: Collection[str] | None = None
    ) -> None:
        if isinstance(client, Mapping) and (namespaces is not None or not client):
            raise SettingsError("TemporalEngine: give a client for each namespace, or one client and namespaces=[...]")
        if namespaces is not None and (
            not namespaces or isinstance(namespaces, str) or not all(name.strip() for name in namespaces)
        ):
            raise SettingsError(
                f"namespaces={namespaces!r}: give a list of names, or leave it out for the client's own"
            )
        self._connections: dict[str | None, Connection] = {}
        """Connections by namespace. None is the key of the one for all namespaces."""
        if isinstance(client, Client) or not isinstance(client, Mapping):
            self._connections[None] = client
        else:
            self._connections |= cast("Mapping[str | None, Connection]", client)
        self._namespaces = namespaces
        self._connected: dict[str | None, Client] = {}
        self._clients: dict[tuple[str, bool], Client] = {}
        self._warned = False

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Signal the workflow, or complete the activity that the route names.

        Raises:
            TargetGone: the workflow has ended without this answer or never existed, Temporal refuses the answer, or the
                route names a namespace that is not configured or an activity of another type.
            TargetNotReady: the activity could not be completed at this moment. Deliver later.
            RelayNotReady: the caller encodes its payloads, and this engine's client has no codec. Deliver later.
            temporalio.service.RPCError: Temporal is unreachable. Deliver later.
        """
        client = await self._writing(route)
        wake = _wakes(route.target)
        try:
            await wake(client, route.target, outcome)
        except RPCError as error:
            if _unknown(error):
                if not is_standalone(route.target) and await _ended_with(client, route.target, outcome):
                    return
                raise TargetGone(_ended(route.target)) from error
            if error.status == RPCStatusCode.INVALID_ARGUMENT:
                raise TargetGone(f"Temporal does not take the answer: {error.message}") from error
            raise

    async def has_answer(self, route: Route) -> bool:
        """Whether the answer, once delivered, need not be delivered to this caller again; see `SeesAnswers`.

        A workflow that has ended takes no answer. An activity that is not pending was completed, or is started again
        and then registers again. To a running workflow that waits for a signal the answer is sent again, and Temporal
        drops it if this run has it.

        Raises:
            TargetGone: the route names a namespace that is not configured.
            temporalio.service.RPCError: Temporal is unreachable. Check later.
        """
        client = await self._client(route)
        if is_standalone(route.target):
            return not await _runs_alone(client, route.target)
        try:
            caller = await _described(client, route.target)
        except RPCError as error:
            if _unknown(error):
                return True
            raise
        if _status(caller) in _CLOSED:
            return True
        activity_id = route.target.get("activity_id")
        return activity_id is not None and _pending(caller, activity_id) is None

    async def orphaned(self, route: Route) -> str | None:
        """Return the reason if the workflow has ended without closing its question, else None.

        That happens if it was terminated, or its worker died.

        Raises:
            temporalio.service.RPCError: Temporal is unreachable.
        """
        if is_standalone(route.target):
            return await self._orphaned_alone(route)
        workflow_id = route.target["workflow_id"]
        try:
            client = await self._client(route)
            caller = await _described(client, {"workflow_id": workflow_id})
        except TargetGone:  # the namespace is not configured, so the state of its workflows is unknown
            return None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:  # deleted by retention, or lost in a restart without data
                return None
            raise
        status = _status(caller)
        if status not in _ENDED:
            return None
        return f"workflow {workflow_id!r} has ended ({WorkflowExecutionStatus(status).name.lower()})"

    async def _orphaned_alone(self, route: Route) -> str | None:
        """Return the reason if a standalone activity has ended without closing its question, else None."""
        from awaithumans_adapters.temporal.activities.standalone import status_of

        try:
            status = await status_of(await self._client(route), route.target, RPC_TIMEOUT)
        except TargetGone:
            return None
        if status is None or status.name == "RUNNING":
            return None
        return f"activity {route.target['activity_id']!r} has ended ({status.name.lower()})"

    def asked_by(self, route: Route) -> str:
        """Return the mark of the route's caller on its tasks."""
        if is_standalone(route.target):
            return route.digest
        return mark_of(route.target["namespace"], route.target["workflow_id"], route.idempotency_key)

    async def check(self) -> None:
        """Raise unless each namespace is reachable, accepts the client, and its codec can read what it writes.

        Raises:
            SettingsError: what is wrong, and which setting corrects it.
            Exception: Temporal is unreachable, or not serving.
        """
        for namespace in self._connections:
            try:
                await self._check(namespace)
            except Exception as error:
                if (wrong := setting_behind(error)) is not None:
                    raise wrong from error
                raise

    async def _check(self, namespace: str | None) -> None:
        client = await self._connection(namespace)
        if not await client.service_client.check_health(timeout=RPC_TIMEOUT):
            raise RuntimeError("Temporal answers that it is not serving")
        for each in [namespace] if namespace else self._namespaces or [client.namespace]:
            await check_access(client, each, timeout=RPC_TIMEOUT)
        await check_codec(client.data_converter, namespace=client.namespace)

    async def serves(self) -> Collection[str]:
        """Return the namespaces that answers may go to."""
        return await self._allowed()

    async def remark(self) -> str:
        """Return whether workflows can be listed by assignee in each namespace, for `awaithumans-relay doctor`.

        Raises:
            SettingsError: the search attribute has another type.
        """
        namespaces = sorted(await self._allowed())
        found = {namespace: await self._listed(namespace) for namespace in namespaces}
        if len(found) == 1:
            return found[namespaces[0]]
        return "; ".join(f"namespace {namespace!r}: {remark}" for namespace, remark in found.items())

    async def _listed(self, namespace: str) -> str:
        client = await self._connection(namespace if namespace in self._connections else None)
        try:
            found = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=namespace), timeout=RPC_TIMEOUT
            )
        except RPCError as refused:  # Temporal Cloud has another API for search attributes
            return f"search attribute {ASSIGNEES}: unknown, as they cannot be listed ({refused.status.name.lower()})"
        kind = found.custom_attributes.get(ASSIGNEES)
        if kind == IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST:
            return f"search attribute {ASSIGNEES} exists"
        create = (
            f"temporal operator search-attribute create --namespace {namespace} --name {ASSIGNEES} --type KeywordList"
        )
        if kind is None:
            return f"search attribute {ASSIGNEES} is missing; before workers use list_assignees=True: {create}"
        raise SettingsError(
            f"search attribute {ASSIGNEES} of namespace {namespace!r} is a {IndexedValueType.Name(kind)}, not a "
            f"KeywordList: remove it, then {create}"
        )

    async def _writing(self, route: Route) -> Client:
        """Return the client that encodes an answer as the caller encodes its payloads.

        Raises:
            TargetGone: the route's namespace is not configured.
            RelayNotReady: the caller encodes its payloads, and the client has no codec.
        """
        client = await self._client(route)
        has_codec = client.data_converter.payload_codec is not None
        if route.encoded and not has_codec:
            raise RelayNotReady(
                "the workers encode their payloads, and this relay has no codec: the answer is not written in clear "
                "text. Start the relay with --temporal-data-converter module:attribute, or give TemporalEngine a "
                "client with the workers' data_converter"
            )
        if route.encoded is None and not self._warned:
            self._warned = True
            logger.warning(
                "the route of a wait does not state whether its workers encode payloads, since they are of an earlier "
                "release; its answer is written %s",
                "with this relay's codec" if has_codec else "in clear text",
            )
        return await self._client(route, in_clear=has_codec and route.encoded is False)

    async def _client(self, route: Route, *, in_clear: bool = False) -> Client:
        """Return the client for the route's namespace.

        Raises:
            TargetGone: the namespace is not configured.
        """
        namespace = route.target["namespace"]
        allowed = await self._allowed()
        if namespace not in allowed:
            raise TargetGone(
                f"namespace {namespace!r} is not configured for this relay (configured: {', '.join(sorted(allowed))}): "
                "add it with --temporal-namespace, --temporal-profile or TemporalEngine(namespaces=[...]), then redrive"
            )
        if (namespace, in_clear) not in self._clients:
            base = await self._connection(namespace if namespace in self._connections else None)
            self._clients[namespace, in_clear] = signalling_once(base, namespace, in_clear=in_clear)
        return self._clients[namespace, in_clear]

    async def _allowed(self) -> Collection[str]:
        if None not in self._connections:
            return [namespace for namespace in self._connections if namespace is not None]
        return self._namespaces or [(await self._connection(None)).namespace]

    async def _connection(self, namespace: str | None) -> Client:
        """Return the connected client of a namespace, or for None the client for all namespaces."""
        if namespace not in self._connected:
            connect = self._connections[namespace]
            self._connected[namespace] = connect if isinstance(connect, Client) else await connect()
        return self._connected[namespace]


def is_standalone(target: Mapping[str, str]) -> bool:
    """Whether a route leads to an activity that was started without a workflow."""
    return "workflow_id" not in target


def _wakes(target: Mapping[str, str]) -> Callable[[Client, Mapping[str, str], Outcome], Awaitable[None]]:
    """Return the function that delivers an answer to the caller of a route."""
    if is_standalone(target):
        return _complete_alone
    return _complete if "activity_id" in target else _signal


async def _complete_alone(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Complete an activity that was started without a workflow."""
    from awaithumans_adapters.temporal.activities.standalone import (
        complete_standalone,  # needs a newer SDK than the other modules
    )

    await complete_standalone(client, target, outcome, PYDANTIC, RPC_TIMEOUT)


async def _runs_alone(client: Client, target: Mapping[str, str]) -> bool:
    from awaithumans_adapters.temporal.activities.standalone import status_of

    status = await status_of(client, target, RPC_TIMEOUT)
    return status is not None and status.name == "RUNNING"


async def _signal(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Signal the workflow's current run. If this run has the signal, Temporal drops it without an error."""
    workflow_id = target["workflow_id"]
    context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=workflow_id)
    answer = await carried(outcome, client.data_converter, context, PYDANTIC)
    await client.get_workflow_handle(workflow_id).signal(SIGNAL, answer.value(), rpc_timeout=RPC_TIMEOUT)


async def _complete(client: Client, target: Mapping[str, str], outcome: Outcome) -> None:
    """Complete the activity, in the run that the target names, or else in the current one.

    Temporal accepts this between two attempts as well, and while no worker runs. An activity that is not pending was
    already completed or cancelled, or has not been scheduled yet by a run that will ask again and then find the answer
    on the server. In each case a workflow that continues has what it needs. The same is true if the named run was reset
    or continued as new, because the next run asks itself. A workflow that has ended may have taken the answer; see
    `has_taken`.

    Raises:
        TargetGone: the activity is of another type, or the workflow has ended without the answer.
        TargetNotReady: the activity is pending but could not be completed.
    """
    activity_id = target["activity_id"]
    caller = await _described(client, target)
    if (found := _pending(caller, activity_id)) is not None:
        if found.activity_type.name != AWAIT_HUMAN:
            raise TargetGone(
                f"activity {activity_id!r} of workflow {target['workflow_id']!r} has the type "
                f"{found.activity_type.name!r}; only {AWAIT_HUMAN!r} is completed with an answer"
            )
        # Complete it in the run in which its type was checked.
        run = caller.workflow_execution_info.execution
        context = ActivitySerializationContext(
            namespace=client.namespace,
            activity_id=activity_id,
            activity_type=AWAIT_HUMAN,
            activity_task_queue=None,
            workflow_id=run.workflow_id,
            workflow_type=caller.workflow_execution_info.type.name,
            is_local=False,
        )
        waiting = client.get_async_activity_handle(
            workflow_id=run.workflow_id, run_id=run.run_id, activity_id=activity_id
        )
        # A payload that is too large for Temporal would fail the activity.
        answer = await carried(outcome, client.data_converter, context, PYDANTIC)
        try:
            await waiting.with_context(context).complete(answer.value(), rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if not _unknown(error):
                raise
            caller = await _described(client, target)
            if _pending(caller, activity_id) is not None:
                raise TargetNotReady(f"activity {activity_id!r} is pending and could not be completed") from error
        else:
            return
    if _status(caller) not in _CLOSED or await _goes_on(client, target, caller):
        return
    if not await has_taken(client, target, outcome, RPC_TIMEOUT):
        raise TargetGone(_ended(target))


async def _ended_with(client: Client, target: Mapping[str, str], outcome: Outcome) -> bool:
    """Whether the workflow took this outcome before it ended, from an attempt that found it on the server."""
    try:
        return await has_taken(client, target, outcome, RPC_TIMEOUT)
    except RPCError as error:
        if _unknown(error):
            return False
        raise


async def _goes_on(client: Client, target: Mapping[str, str], caller: DescribeWorkflowExecutionResponse) -> bool:
    """Whether a run of the workflow continues that is not the one in which `await_human` was called.

    A workflow that was started anew under the same id is a different one that did not ask the question.
    """
    if "run_id" not in target or not target["activity_id"].startswith(OWN_ACTIVITY):
        return False
    current = await _described(client, {"workflow_id": target["workflow_id"]})
    now, then = current.workflow_execution_info, caller.workflow_execution_info
    another = now.execution.run_id != target["run_id"]
    return another and _status(current) not in _CLOSED and now.first_run_id == then.first_run_id


def _handle(client: Client, target: Mapping[str, str]) -> WorkflowHandle[Any, Any]:
    return client.get_workflow_handle(target["workflow_id"], run_id=target.get("run_id"))


async def _described(client: Client, target: Mapping[str, str]) -> DescribeWorkflowExecutionResponse:
    """Return Temporal's description of the run that the target names, or of the current run.

    The SDK cannot read a status that it does not know, such as that of a paused workflow, which still takes answers.
    """
    try:
        return (await _handle(client, target).describe(rpc_timeout=RPC_TIMEOUT)).raw_description
    except ValueError:
        run = WorkflowExecution(workflow_id=target["workflow_id"], run_id=target.get("run_id", ""))
        request = DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=run)
        return await client.workflow_service.describe_workflow_execution(request, retry=True, timeout=RPC_TIMEOUT)


def _status(caller: DescribeWorkflowExecutionResponse) -> int:
    return caller.workflow_execution_info.status


def _pending(caller: DescribeWorkflowExecutionResponse, activity_id: str) -> PendingActivityInfo | None:
    """Return the activity if it waits for its result. Temporal limits the number of a workflow's pending activities."""
    if _status(caller) in _CLOSED:  # a terminated workflow still lists its activities
        return None
    return next((activity for activity in caller.pending_activities if activity.activity_id == activity_id), None)


def _ended(target: Mapping[str, str]) -> str:
    return f"workflow {target['workflow_id']!r} in namespace {target['namespace']!r} has ended or never was"


def _unknown(error: RPCError) -> bool:
    """Whether Temporal does not know the workflow or the activity, in a namespace that it knows."""
    return error.status == RPCStatusCode.NOT_FOUND and not any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details
    )
