"""The HTTP clients of this package. What the other side sends cannot fill the memory, and exposed proofs are reported.

Law: a reply is bounded after it is unpacked. 291 kB of gzip can unpack to 634 MB, and httpx unpacks whatever it is sent
in one step. So replies are unpacked here, piece by piece, and only in the two encodings that are asked for.
"""

import ipaddress
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans")

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Of one reply, unpacked. The server allows a task 5 MB of payload and response, and lists hold several tasks."""
_PIECE_BYTES = 256 * 1024
"""Unpacked in one step."""
_ENCODINGS = "gzip, deflate"
_ANY_ZLIB = zlib.MAX_WBITS | 32
"""gzip or zlib, by its header."""


class ReplyTooLarge(httpx.DecodingError):
    """A reply that is larger than `MAX_REPLY_BYTES` when it is unpacked. The rest of it was not read."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(
            f"the reply is larger than {MAX_REPLY_BYTES // 2**20} MB unpacked; the rest was not read",
            request=response.request,
        )
        self.status = response.status_code


def async_client(**options: Any) -> httpx.AsyncClient:
    """An httpx client whose replies are bounded; options are httpx's, except for event hooks."""
    return bounded(httpx.AsyncClient(**options))


def sync_client(**options: Any) -> httpx.Client:
    """`async_client` without an event loop."""
    client = httpx.Client(**options, event_hooks={"response": [_bound]})
    client.headers["Accept-Encoding"] = _ENCODINGS
    return client


def bounded(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Bound the replies of a client that another library has made."""
    client.event_hooks = {"response": [_bound_async]}
    client.headers["Accept-Encoding"] = _ENCODINGS
    return client


def _bound(response: httpx.Response) -> None:
    response.stream = _Bounded(response.stream, _unpacking(response))


async def _bound_async(response: httpx.Response) -> None:
    response.stream = _BoundedAsync(response.stream, _unpacking(response))


Unpack = Callable[[bytes], Iterator[bytes]]
"""Turns a piece of the body as it was sent into pieces of the body."""


def _unpacking(response: httpx.Response) -> Unpack:
    """How to unpack this response. It is taken from httpx by removing the header that names the encoding.

    Raises:
        httpx.DecodingError: the encoding was not asked for.
    """
    encoding = response.headers.pop("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "", "gzip", "x-gzip", "deflate"}:
        raise httpx.DecodingError(
            f"the reply is encoded as {encoding[:40]!r}, which was not asked for", request=response.request
        )
    pieces = _as_sent if encoding in {"identity", ""} else _inflate(response)
    size = 0

    def unpack(sent: bytes) -> Generator[bytes]:
        nonlocal size
        for piece in pieces(sent):
            size += len(piece)
            if size > MAX_REPLY_BYTES:
                raise ReplyTooLarge(response)
            yield piece

    return unpack


def _as_sent(sent: bytes) -> Iterator[bytes]:
    yield sent


def _inflate(response: httpx.Response) -> Unpack:
    packed = zlib.decompressobj(_ANY_ZLIB)
    begun = False

    def pieces(sent: bytes) -> Generator[bytes]:
        nonlocal packed, begun
        while sent and not packed.eof:
            try:
                piece = packed.decompress(sent, _PIECE_BYTES)
            except zlib.error as error:
                if begun:
                    raise httpx.DecodingError(str(error), request=response.request) from error
                packed, begun = zlib.decompressobj(-zlib.MAX_WBITS), True  # what some servers call deflate
                continue
            begun, sent = True, packed.unconsumed_tail
            yield piece

    return pieces


class _Bounded(httpx.SyncByteStream):
    def __init__(self, sent: Any, unpack: Unpack) -> None:
        self._sent = sent
        self._unpack = unpack

    def __iter__(self) -> Iterator[bytes]:
        for part in self._sent:
            yield from self._unpack(part)

    def close(self) -> None:
        self._sent.close()


class _BoundedAsync(httpx.AsyncByteStream):
    def __init__(self, sent: Any, unpack: Unpack) -> None:
        self._sent = sent
        self._unpack = unpack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._sent:
            for piece in self._unpack(part):
                yield piece

    async def aclose(self) -> None:
        await self._sent.aclose()


_reported: set[str] = set()
"""Warnings that this process has logged."""


def warn_if_exposed(setting: str, url: str, proof: str) -> None:
    """Log once for each process when others on the way can read a proof that is sent to this address.

    Args:
        setting: Where the address comes from, for the text.
        url: The address.
        proof: What is sent there, for the text.
    """
    for warning in exposures(setting, url, proof):
        if warning not in _reported:
            _reported.add(warning)
            logger.warning(warning)


def exposures(setting: str, url: str, proof: str) -> list[str]:
    """Who can read a proof that is sent to this address, as sentences for the operator."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        return []  # through a proxy this is a tunnel, which the proxy cannot read
    found: list[str] = []
    if not _is_loopback(host):
        found.append(
            f"{setting} is {parts.scheme}://{host}: {proof} and all answers travel in clear text. Use https://, unless "
            "everything between is a private network"
        )
    proxies = getproxies()
    if (proxies.get("http") or proxies.get("all")) and not proxy_bypass(host):
        name = "HTTP_PROXY" if proxies.get("http") else "ALL_PROXY"
        found.append(
            f"{setting} is {parts.scheme}://{host}, and {name} is set: that proxy can read {proof} and all answers. "
            f"Use https://, or add {host} to NO_PROXY"
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
