"""A gateway in front of a Temporal dev server, which has neither TLS nor API keys of its own.

It speaks gRPC over TLS, checks client certificates and API keys, and passes every call on.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]  # has no stubs
from devservers import free_port

from tests.support.authority import Authority


@dataclass
class Gateway(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes unary calls on to `target`.

    Args:
        target: Address of the dev server.
        keys: The API keys it accepts, each with the namespace it is for. None: every call passes.
    """

    target: str
    keys: dict[str, str] | None = None

    def service(self, handler_call_details: Any) -> Any:
        method, metadata = handler_call_details.method, dict(handler_call_details.invocation_metadata)

        async def call(request: bytes, context: Any) -> bytes:
            if not self._allows(metadata):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Request unauthorized.")
            try:
                return bytes(await self.channel.unary_unary(method)(request, timeout=context.time_remaining()))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details(), tuple(error.trailing_metadata()))
                raise

        return grpc.unary_unary_rpc_method_handler(call)

    def _allows(self, metadata: dict[str, Any]) -> bool:
        if self.keys is None:
            return True
        namespace = self.keys.get(metadata.get("authorization", "").removeprefix("Bearer "))
        named = metadata.get("temporal-namespace", namespace)
        return namespace is not None and named == namespace

    @asynccontextmanager
    async def serving(self, authority: Authority, *, mutual: bool = False) -> AsyncGenerator[str]:
        certificate, key = authority.issue("gateway")
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            root_certificates=authority.file.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )
        server, port = grpc.aio.server(options=[("grpc.max_receive_message_length", 8_000_000)]), free_port()
        async with grpc.aio.insecure_channel(self.target) as self.channel:
            server.add_generic_rpc_handlers((self,))
            server.add_secure_port(f"127.0.0.1:{port}", credentials)
            await server.start()
            try:
                yield f"localhost:{port}"
            finally:
                await server.stop(0)
