"""The HTTP clients of this package. They limit the size of replies, and warn if proofs are exposed in transit.

Law: the size of a reply is limited after decompression, so that a server cannot fill the memory. 291 kB of gzip can
decompress to 634 MB, and httpx decompresses in one step whatever it receives. So replies are decompressed here, piece
by piece, and only in the two encodings that were requested.
"""

import ipaddress
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import Lost, Proxy, Reply
from awaithumans_core.http.addresses import in_brackets
from awaithumans_core.http.environment import certificate_errors, check_proxies, missing_certificates, proxy_for
from awaithumans_core.http.local_server import announced_elsewhere
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans")

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Maximum size of one decompressed reply.

The server allows a task 5 MB of payload and response, and lists hold several tasks.
"""
_PIECE_BYTES = 256 * 1024
"""Maximum number of bytes that are decompressed in one step."""
_ENCODINGS = "gzip, deflate"
_MAX_CAUSES = 10
"""Maximum number of exceptions that are followed from an error to its cause."""
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""OpenSSL's name of the error for a certificate that is not trusted."""
_ANY_ZLIB = zlib.MAX_WBITS | 32
"""Window bits with which zlib detects gzip or zlib format by the header."""


class ReplyTooLarge(httpx.DecodingError):
    """The decompressed reply is larger than `MAX_REPLY_BYTES`. The rest of it was not read."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(
            f"the reply is larger than {MAX_REPLY_BYTES // 2**20} MB unpacked; the rest was not read",
            request=response.request,
        )
        self.status = response.status_code


def async_client(**options: Any) -> httpx.AsyncClient:
    """Return an async httpx client that limits the size of replies. It takes httpx's options, except event hooks.

    Raises:
        SettingsError: certificates, a proxy or NO_PROXY of the environment cannot be used.
    """
    with _environment_errors(options):
        return bounded(httpx.AsyncClient(**options))


def sync_client(**options: Any) -> httpx.Client:
    """Return a sync httpx client that limits the size of replies. Options and errors are those of `async_client`."""
    with _environment_errors(options):
        client = httpx.Client(**options)
    client.event_hooks = {"response": [_bound]}
    client.headers["Accept-Encoding"] = _ENCODINGS
    return client


def check_environment() -> None:
    """Check that HTTP clients can be created with the proxies and certificates of this environment.

    Raises:
        SettingsError: they cannot be created. The text names the variable.
    """
    sync_client().close()


@contextmanager
def _environment_errors(options: Mapping[str, Any]) -> Generator[None]:
    if options.get("transport") is None:  # httpx takes proxies from the environment only for its own transport
        check_proxies()
    try:
        with certificate_errors():
            yield
    except httpx.InvalidURL as malformed:
        raise SettingsError(f"{options.get('base_url')!r} is not an address: {malformed}") from None


def reply_of(response: httpx.Response, *, direct: bool = False) -> Reply:
    """Return a response as a `Reply` for a flow, with the proxy that may have produced it.

    Args:
        response: The response, read to its end.
        direct: Whether it came over a transport given by the caller, which uses no proxy.
    """
    usable = response.is_success and "json" in response.headers.get("Content-Type", "")
    return Reply(
        response.status_code,
        {name.lower(): value for name, value in response.headers.items()},
        response.content,
        proxy=None if usable or direct else proxy_for(str(response.url)),
        url=url_of(response),
        elsewhere="" if usable or direct else announced_elsewhere(url_of(response)),
    )


def lost(error: httpx.RequestError, *, direct: bool = False) -> Lost:
    """Return an error of the network as a `Lost` for a flow. The arguments are those of `reply_of`.

    Raises:
        SettingsError: as `lost_reason` does.
    """
    url = url_of(error)
    return Lost(lost_reason(error, direct=direct), url, "" if direct else announced_elsewhere(url))


def url_of(result: httpx.Response | httpx.RequestError) -> str:
    """Return the URL of a request from its result, without its query. Empty: there was no request yet."""
    try:
        return str(result.request.url.copy_with(query=None))
    except RuntimeError:  # it was raised before there was a request
        return ""


def lost_reason(error: httpx.RequestError, *, direct: bool = False) -> str:
    """Return why there was no reply, and the proxy through which the request was sent.

    Raises:
        SettingsError: the certificate is not trusted because no authority is trusted: SSL_CERT_DIR is missing.
    """
    text = str(error) or ("no reply in time" if isinstance(error, httpx.TimeoutException) else "")
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if _UNTRUSTED in reason:
        if (missing := missing_certificates()) is not None:
            raise SettingsError(f"{missing} ({reason})") from None
        reason += " (give the certificate of its authority as SSL_CERT_FILE)"
    elif (hint := _hint(error, reason)) is not None:
        reason += f" ({hint})"
    proxy = None if direct else proxy_of(error)
    return reason if proxy is None else f"{reason}, through {proxy}. {proxy.advice}"


def _hint(error: httpx.RequestError, reason: str) -> str | None:
    """Return in plain words what an error of the network shows about the address; None if its own text is enough."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < _MAX_CAUSES:
        causes.append(cause)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "no host of this name is known here"
    if "WRONG_VERSION_NUMBER" in reason:
        return "it serves plain HTTP: write http://"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and url_of(error).startswith("http://"):
        return "if it serves TLS, write https://"
    return None


def proxy_of(error: httpx.RequestError) -> Proxy | None:
    """Return the proxy through which the failed request was sent; None if there was no proxy or no request yet."""
    return proxy_for(url) if (url := url_of(error)) else None


def bounded(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Limit the size of replies in a client that another library has created, and return it."""
    client.event_hooks = {"response": [_bound_async]}
    client.headers["Accept-Encoding"] = _ENCODINGS
    return client


def _bound(response: httpx.Response) -> None:
    response.stream = _Bounded(response.stream, _unpacking(response))


async def _bound_async(response: httpx.Response) -> None:
    response.stream = _BoundedAsync(response.stream, _unpacking(response))


Unpack = Callable[[bytes], Iterator[bytes]]
"""Decompresses one piece of the body, as it was sent, into pieces of the decompressed body."""


def _unpacking(response: httpx.Response) -> Unpack:
    """Return the function that decompresses this response.

    The header that names the encoding is removed, so that httpx does not decompress the response itself.

    Raises:
        httpx.DecodingError: the encoding was not requested.
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
    """Log a warning, once per process, if others on the network path can read a proof that is sent to this address.

    Args:
        setting: Name of the setting that holds the address, for the text.
        url: The address.
        proof: What is sent to the address, for the text.
    """
    for warning in exposures(setting, url, proof):
        if warning not in _reported:
            _reported.add(warning)
            logger.warning(warning)


def exposures(setting: str, url: str, proof: str) -> list[str]:
    """Return who can read a proof that is sent to this address, as sentences for the operator."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        return []  # through a proxy this is a tunnel, which the proxy cannot read
    found: list[str] = []
    address = f"{parts.scheme}://{in_brackets(host)}"
    if not _is_loopback(host):
        found.append(
            f"{setting} is {address}: {proof} and all answers travel in clear text. Use https://, unless "
            "everything between is a private network"
        )
    if (proxy := proxy_for(url)) is not None:
        found.append(
            f"{setting} is {address}, and {proxy.variable} is set: that proxy can read {proof} and all answers. "
            f"Use https://, or add {host} to NO_PROXY"
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
