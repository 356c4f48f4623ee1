"""A TCP proxy between two processes, whose connections a scenario breaks and heals."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from devservers import free_port

Mode = Literal["pass", "refuse", "hang", "lose replies"]
"""`refuse` resets connections, `hang` carries nothing until it ends, `lose replies` carries requests only."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Target = Callable[[], Awaitable[Streams]]

CHUNK = 65536


def tcp(port: int) -> Target:
    """Return a target on this machine."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def unix(path: str) -> Target:
    """Return a target that listens on a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)


@dataclass
class Connection:
    """A connection through the proxy."""

    caller: asyncio.StreamWriter
    first: bytes
    """Beginning of what the caller has sent."""
    target: asyncio.StreamWriter | None = None
    broken: bool = False
    """Whether bytes of it were lost, so that it cannot go on."""

    def reset(self) -> None:
        """Close the connection at once on both sides."""
        for writer in filter(None, (self.caller, self.target)):
            if found := writer.get_extra_info("socket"):
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@dataclass
class Proxy:
    """Forwards connections to the first of its targets that accepts them, from the next one on for each connection."""

    targets: list[Target]
    port: int = field(default_factory=free_port)
    mode: Mode = "pass"
    _only: bytes = b""
    _open: list[Connection] = field(default_factory=list[Connection])
    _healed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _accepted: int = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Close everything."""
        self.heal()
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            connection.reset()

    def breaks(self, mode: Mode, *, only: bytes = b"") -> None:
        """Break open and later connections, or only those whose callers begin with these bytes."""
        self.mode, self._only = mode, only
        self._healed.clear()
        if mode == "refuse":
            for connection in filter(self._applies, list(self._open)):
                connection.reset()

    def heal(self) -> None:
        """Carry everything again. Bytes that were held are delivered; connections that lost some are reset."""
        self.mode, self._only = "pass", b""
        self._healed.set()
        for connection in list(self._open):
            if connection.broken:
                connection.reset()

    def _applies(self, connection: Connection) -> bool:
        return connection.first.startswith(self._only)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer, b"")
        self._open.append(connection)
        try:
            with suppress(OSError):
                connection.first = await reader.read(CHUNK)  # callers of HTTP, gRPC and PostgreSQL speak first
                if connection.first and not (self.mode == "refuse" and self._applies(connection)):
                    await self._forward(connection, reader)
        finally:
            connection.reset()
            self._open.remove(connection)

    async def _forward(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        await self._held(connection)
        replies, connection.target = await self._connected()
        connection.target.write(connection.first)
        ways = [
            asyncio.create_task(self._carry(connection, reader, connection.target, replies=False)),
            asyncio.create_task(self._carry(connection, replies, connection.caller, replies=True)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _connected(self) -> Streams:
        self._accepted += 1
        for place in range(len(self.targets)):
            with suppress(OSError):
                return await self.targets[(self._accepted + place) % len(self.targets)]()
        raise ConnectionRefusedError

    async def _held(self, connection: Connection) -> None:
        if self.mode == "hang" and self._applies(connection):
            await self._healed.wait()

    async def _carry(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while chunk := await reader.read(CHUNK):
            await self._held(connection)
            if replies and self.mode == "lose replies" and self._applies(connection):
                connection.broken = True
                continue
            writer.write(chunk)
            await writer.drain()
