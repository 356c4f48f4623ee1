"""The relay's side: an outcome becomes a signal."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from awaithumans_adapters.temporal.names import ENGINE, SIGNAL
from awaithumans_core.engine import TargetGone
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

RPC_TIMEOUT = timedelta(seconds=10)


class TemporalEngine:
    """Signals the workflow that asked, in whichever namespace it lives.

    Duplicates and early signals are the workflow's mailbox's normal case; Temporal keeps signals for a workflow whose
    worker is down.

    Args:
        client: A connected client, or an async function that connects one; then the relay starts while Temporal is
            still down. With a payload codec, the same one as the workers'.
    """

    name = ENGINE

    def __init__(self, client: Client | Callable[[], Awaitable[Client]]) -> None:
        self._connect = client
        self._clients: dict[str, Client] = {}

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Signal the workflow.

        Raises:
            TargetGone: the workflow has ended or never was, or the answer is larger than Temporal takes.
            temporalio.service.RPCError: Temporal is away; later.
        """
        namespace, workflow_id = route.target["namespace"], route.target["workflow_id"]
        client = await self._client(namespace)
        try:
            await client.get_workflow_handle(workflow_id).signal(SIGNAL, outcome.value(), rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND and not _namespace_missing(error):
                raise TargetGone(
                    f"workflow {workflow_id!r} in namespace {namespace!r} has ended or never was"
                ) from error
            if error.status == RPCStatusCode.INVALID_ARGUMENT:
                raise TargetGone(f"Temporal does not take the answer: {error.message}") from error
            raise

    async def _client(self, namespace: str) -> Client:
        if namespace not in self._clients:
            base = next(iter(self._clients.values()), None) or await self._connected()
            self._clients[base.namespace] = base
            if namespace != base.namespace:
                config = base.config()
                config["namespace"] = namespace
                self._clients[namespace] = Client(**config)
        return self._clients[namespace]

    async def _connected(self) -> Client:
        return self._connect if isinstance(self._connect, Client) else await self._connect()


def _namespace_missing(error: RPCError) -> bool:
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)
