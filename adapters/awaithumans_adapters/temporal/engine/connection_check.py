"""Checks whether Temporal can be used with the current settings, and finds the setting that is wrong if not.

The SDK reports every connection problem in one text, so the kinds are distinguished by phrases in that text.
"""

import uuid
from collections.abc import Mapping
from datetime import timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.converter import DataConverter, WorkflowSerializationContext
from temporalio.service import RPCError, RPCStatusCode

from awaithumans_core.errors import SettingsError

_KEY = (
    "Temporal refuses the API key, or the call has none: give the key of this namespace as TEMPORAL_API_KEY or in the "
    "profile"
)
_REFUSED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)
_BY_WORDS: Mapping[str, str] = {
    "code: PermissionDenied": _KEY,
    "code: Unauthenticated": _KEY,
    "InvalidCertificate(NotValidForName": "TLS: the server's certificate is for another name: give the name in it as "
    "TEMPORAL_TLS_SERVER_NAME, or connect to that name",
    "InvalidCertificate(": "TLS: the server's certificate is not trusted: give its authority's as "
    "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    "InvalidMessage(InvalidContentType": "TLS: the server speaks no TLS: set TEMPORAL_TLS=false",
    "get_system_info": "TLS: the server closes the connection: it wants TLS (TEMPORAL_TLS=true), or a client "
    "certificate that it trusts (TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH)",
}
"""Phrase in the SDK's error text -> the setting to correct. The first match counts."""
_PROBE = {"probe": True}


def setting_behind(error: Exception) -> SettingsError | None:
    """Return the wrong setting behind an error of the SDK, or None for another kind of error, such as an outage."""
    if isinstance(error, RPCError):
        return SettingsError(_KEY) if error.status in _REFUSED else None
    if not str(error).startswith("Failed client connect"):
        return None
    found = [advice for words, advice in _BY_WORDS.items() if words in str(error)]
    return SettingsError(f"{found[0]} ({error})") if found else None


async def check_access(client: Client, namespace: str, *, timeout: timedelta) -> None:
    """Raise unless the client may describe workflows in this namespace. The request names one that does not exist.

    Raises:
        SettingsError: there is no such namespace.
        RPCError: access is refused, or Temporal is unreachable.
    """
    nobody = WorkflowExecution(workflow_id=f"awaithumans-probe-{uuid.uuid4().hex}")
    request = DescribeWorkflowExecutionRequest(namespace=namespace, execution=nobody)
    try:
        await client.workflow_service.describe_workflow_execution(request, timeout=timeout)
    except RPCError as error:
        if any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details):
            raise SettingsError(
                f"Temporal has no namespace {namespace!r}: correct TEMPORAL_NAMESPACE, the profile or "
                "--temporal-namespace"
            ) from error
        if error.status != RPCStatusCode.NOT_FOUND:
            raise


async def check_codec(converter: DataConverter, *, namespace: str) -> None:
    """Raise unless the converter can read what it writes.

    Raises:
        SettingsError: it cannot.
    """
    context = WorkflowSerializationContext(namespace=namespace, workflow_id="awaithumans-probe")
    codec = converter.with_context(context)
    try:
        (read,) = await codec.decode(await codec.encode([_PROBE]), [dict])
    except Exception as error:
        # without the text of the error, which may quote a key
        raise SettingsError(
            f"codec: the data converter cannot encode a payload and read it again ({type(error).__name__}): see "
            "whether its keys, or its codec server, can be reached by the relay"
        ) from error
    if read != _PROBE:
        raise SettingsError("codec: the data converter does not read what it has written: see its codec")
