"""Where an answer must go, and the signed token that carries it in the callback URL.

Law: an answer is never given to the wrong question. The body's signature proves what was answered, the token proves who
asked, and both name the idempotency key; only together do they move anything.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from awaithumans_core.errors import CallbackRejectedError, SettingsError

if TYPE_CHECKING:
    from itsdangerous import URLSafeSerializer
    from pydantic.types import JsonValue

MAX_TOKEN_CHARS = 4096
"""Longer ones are refused unread; common servers and proxies cut request lines at 8 KB."""

_LONG_BYTES = 1024
"""Longer routes are compressed. Others are not: to decompress gives the interpreter to another thread, and a relay that
answers callbacks waits milliseconds until it has it back.
"""

MIN_SECRET_CHARS = 16
"""Shorter relay secrets can be guessed."""

MAX_TRACEPARENT_CHARS = 55
"""Of W3C Trace Context, version 00."""

_CANONICAL, _PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":")), json.JSONEncoder()

_SALT = b"awaithumans-route-v1"
_SHAPE = re.compile(r"\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""The exact form of a token; a decoder would skip foreign characters. Earlier releases put a dot before long ones."""

_ZLIB = b"eJ"
"""How base64 of zlib data begins. That of JSON begins otherwise, so both need no mark."""


@dataclass(frozen=True)
class Route:
    """One asker's address."""

    engine: str
    """Which engine wakes it: `temporal`, `langgraph`, or the name of your own."""
    target: Mapping[str, str]
    """What to wake there, in the engine's own words, for instance `{"namespace": ..., "workflow_id": ...}`."""
    idempotency_key: str
    """The question it waits for. An answer to any other question is not for this route."""
    traceparent: str | None = field(default=None, compare=False)
    """W3C trace context of whoever asked, if it is traced. No part of the route's identity."""
    encoded: bool | None = field(default=None, compare=False)
    """Whether the caller encodes (encrypts, compresses) what it writes into its engine's history, so that its answer
    must be written in the same way. None: not known, since the caller is of an earlier release. No part of the route's
    identity.
    """

    @cached_property
    def target_id(self) -> str:
        """The target in one canonical line: deliveries to one target are made one after the other."""
        return _CANONICAL.encode(dict(self.target))

    @cached_property
    def digest(self) -> str:
        """Short, stable identity of this route, 32 hex digits."""
        whole = _PLAIN.encode([self.engine, self.target_id, self.idempotency_key])
        return hashlib.sha256(whole.encode()).hexdigest()[:32]


_GENERATE = (
    "give the relay and everyone who asks through it the same random secret, for instance from: "
    'python -c "import secrets; print(secrets.token_urlsafe(32))"'
)


class RouteSigner:
    """Issues and opens route tokens. The first secret signs; all of them verify, so that secrets can be rotated.

    Raises:
        SettingsError: no secret, or one that is too short.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise SettingsError(f"AWAITHUMANS_RELAY_SECRET is not set: {_GENERATE}")
        if any(len(secret) < MIN_SECRET_CHARS for secret in secrets):
            raise SettingsError(f"AWAITHUMANS_RELAY_SECRET is shorter than {MIN_SECRET_CHARS} characters: {_GENERATE}")
        self._serializer = _serializer(secrets)
        self._signer = self._serializer.make_signer()

    def __repr__(self) -> str:
        return "RouteSigner(********)"

    def issue(self, route: Route) -> str:
        """A URL-safe token for this route. It is a proof, not a secret, and holds no credential."""
        held: dict[str, object] = {"e": route.engine, "t": dict(route.target), "k": route.idempotency_key}
        if route.encoded is not None:
            held["c"] = route.encoded
        text = self._signed(held | ({"p": route.traceparent} if route.traceparent else {}))
        if len(text) > MAX_TOKEN_CHARS:  # an answer matters more than its trace
            text = self._signed(held)
        if len(text) > MAX_TOKEN_CHARS:
            raise SettingsError(
                f"the route is too long for a URL ({len(text)} characters): shorten ids or the idempotency key"
            )
        return text

    def _signed(self, held: Mapping[str, object]) -> str:
        token = self._serializer.dumps(held)
        return token.decode() if isinstance(token, bytes) else token

    def open(self, token: str) -> Route:
        """The route in a token.

        Raises:
            CallbackRejectedError: 401, whatever is wrong with it.
        """
        return self.read(self.verify(token))

    def verify(self, token: str) -> bytes:
        """The content of a token with a valid signature, for `read`. Nothing of it is decoded yet.

        Raises:
            CallbackRejectedError: 401.
        """
        from itsdangerous import BadSignature

        if len(token) > MAX_TOKEN_CHARS or not _SHAPE.fullmatch(token):
            raise _refused()
        try:
            return self._signer.unsign(token)
        except BadSignature:
            raise _refused() from None

    def read(self, verified: bytes) -> Route:
        """The route in what `verify` has returned.

        Raises:
            CallbackRejectedError: 401: the secret has signed something that is not a route.
        """
        from itsdangerous import BadData

        try:
            held = self._serializer.load_payload(verified)
        except BadData:
            raise _refused() from None
        return _route(held)

    def knows(self, token: str) -> bool:
        """Whether the token is signed with one of the secrets."""
        try:
            self.verify(token)
        except CallbackRejectedError:
            return False
        return True


def _refused() -> CallbackRejectedError:
    return CallbackRejectedError("the token was not signed with this relay's AWAITHUMANS_RELAY_SECRET", http_status=401)


def _route(held: "JsonValue") -> Route:
    match held:
        case {"e": str(engine), "t": dict(target), "k": str(key), **more}:
            traceparent, encoded = more.get("p"), more.get("c")
            return Route(
                engine,
                {str(name): str(value) for name, value in target.items()},
                key,
                traceparent if isinstance(traceparent, str) and len(traceparent) <= MAX_TRACEPARENT_CHARS else None,
                encoded if isinstance(encoded, bool) else None,
            )
        case _:
            raise _refused()


def _serializer(secrets: Sequence[str]) -> "URLSafeSerializer":
    # Imported here so that workflows, which use Route and never a signer, load nothing outside the sandbox's reach.
    from itsdangerous import URLSafeSerializer
    from itsdangerous.encoding import base64_encode

    class Tokens(URLSafeSerializer):
        """Without the dot that itsdangerous puts before what it has compressed: many proxies refuse such paths."""

        def dump_payload(self, obj: Any) -> bytes:
            plain = json.dumps(obj, separators=(",", ":")).encode()
            return base64_encode(plain if len(plain) <= _LONG_BYTES else min(plain, zlib.compress(plain), key=len))

        def load_payload(self, payload: bytes, *args: Any, **options: Any) -> Any:
            marked = b"." + payload if payload.startswith(_ZLIB) else payload
            return super().load_payload(marked, *args, **options)

    oldest_first = [secret.encode() for secret in reversed(secrets)]
    return Tokens(oldest_first, salt=_SALT, signer_kwargs={"digest_method": hashlib.sha256})
