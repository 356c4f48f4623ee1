"""Sends signals with a request id, so that Temporal itself drops duplicates.

Law: one workflow run receives an answer once, however often it is sent. The request id of a signal is computed from the
answer, and Temporal drops a signal whose request id the run already has. It also accepts such a signal without an error
after the run has ended. The reply then shows that the run had the answer, and no history has to be read.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client, Interceptor, OutboundInterceptor, SignalWorkflowInput
from temporalio.converter import WorkflowSerializationContext


def request_id(signal: str, outcome: dict[str, Any]) -> str:
    """Return the request id of an outcome's signal: the same for the same end of the same question."""
    named = [signal, outcome["task_id"], outcome["idempotency_key"], outcome["status"]]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def signalling_once(client: Client, namespace: str, *, in_clear: bool = False) -> Client:
    """Return a client for this namespace, with the connection, converter and interceptors of the given one.

    All signals it sends must carry one outcome.

    Args:
        client: The client to copy.
        namespace: The namespace of the new client.
        in_clear: Leave out the payload codec, for callers that have none.
    """
    config = client.config(active_config=True)  # includes what plugins have added
    config["plugins"] = []
    config["namespace"] = namespace
    if in_clear:
        config["data_converter"] = replace(config["data_converter"], payload_codec=None)
    copy = Client(**config)
    config["interceptors"] = [*config["interceptors"], _Innermost(copy)]
    return Client(**config)


class _Innermost(Interceptor):
    """Sends signals itself, after the interceptors of the client's owner.

    Temporal's client has no option for a request id.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        return _SignalOnce(next, self._client)


class _SignalOnce(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, client: Client) -> None:  # noqa: A002 - the SDK's name
        super().__init__(next)
        self._client = client

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:  # noqa: A002 - the SDK's name
        client, (outcome,) = self._client, input.args
        context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=input.id)
        request = SignalWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=input.id, run_id=input.run_id or ""),
            signal_name=input.signal,
            identity=client.identity,
            request_id=request_id(input.signal, outcome),
        )
        request.input.payloads.extend(await client.data_converter.with_context(context).encode(input.args))
        for name, header in input.headers.items():
            request.header.fields[name].CopyFrom(header)
        await client.workflow_service.signal_workflow_execution(
            request, retry=True, metadata=input.rpc_metadata, timeout=input.rpc_timeout
        )
