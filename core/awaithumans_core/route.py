"""Routes, the signed tokens that carry them in callback URLs, and the proofs with which callers register waits.

A route is where an answer must go. A proof shows that a wait belongs to the caller that registers it.

Law: an answer is never given to the wrong question. The body's signature proves what was answered, the token proves who
asked, and both name the idempotency key. An answer is delivered only if both are valid.

Law: a callback URL gives access to `/callbacks/` and nothing else. It can be read where task ids can: in the server's
list of deliveries, in the logs of proxies, in traces. What a caller sends to `/waits/` is signed under a salt of its
own and bound to one task, and is never part of a URL.
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
from awaithumans_core.secret_strength import GENERATE, weakness
from awaithumans_core.services import WRONG_RELAY_SECRET

if TYPE_CHECKING:
    from itsdangerous import URLSafeSerializer
    from pydantic.types import JsonValue

MAX_TOKEN_CHARS = 4096
"""Maximum length of a token. A longer one is refused unread. Common servers and proxies cut request lines at 8 KB."""

MAX_PROOF_CHARS = MAX_TOKEN_CHARS + 256
"""Maximum length of a proof.

A proof holds a task id beside the route, so it may be longer. Every route that fits a token thus fits a proof.
"""

_LONG_BYTES = 1024
"""Size above which a route is compressed.

Shorter routes are not, because decompression releases the GIL, and a relay that answers callbacks then waits
milliseconds to acquire it again.
"""

MAX_TRACEPARENT_CHARS = 55
"""Length of a `traceparent` of W3C Trace Context, version 00."""

_CANONICAL, _PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":")), json.JSONEncoder()

_CALLBACK_SALT, _REGISTRATION_SALT = b"awaithumans-route-v1", b"awaithumans-registration-v1"
_SHAPE = re.compile(r"\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""The exact form of a token.

It is checked because a decoder would skip invalid characters. Earlier releases put a dot before long tokens.
"""

_ZLIB = b"eJ"
"""The first characters of base64 of zlib data. Base64 of JSON begins differently, so neither needs a mark."""


@dataclass(frozen=True)
class Route:
    """Where the answer to one question must go: an engine, a target and an idempotency key."""

    engine: str
    """The engine that wakes the caller: `temporal`, `langgraph`, or the name of your own."""
    target: Mapping[str, str]
    """What the engine wakes, in the engine's own terms, for instance `{"namespace": ..., "workflow_id": ...}`."""
    idempotency_key: str
    """Key of the question that the caller waits for. An answer to any other question is not for this route."""
    traceparent: str | None = field(default=None, compare=False)
    """W3C trace context of the caller, if it is traced. Not part of the route's identity."""
    encoded: bool | None = field(default=None, compare=False)
    """Whether the caller encodes (encrypts, compresses) what it writes into its engine's history.

    Its answer must then be written in the same way. None: not known, since the caller uses an earlier release. Not part
    of the route's identity.
    """
    asked_at: Mapping[str, str] | None = field(default=None, compare=False)
    """Where in its own records the engine finds the question, in the engine's terms.

    For instance, the checkpoint in which a node asked. None: the engine searches. Not part of the route's identity, so
    that a question that is asked again elsewhere stays one wait.
    """
    caller: Mapping[str, str] | None = field(default=None, compare=False)
    """What else the engine needs to know to reach the caller, for instance which run asked, for which user.

    It can be read in the URL, so it must hold no secret. Not part of the route's identity.
    """

    @cached_property
    def target_id(self) -> str:
        """The target as one canonical line. It identifies the target, so that its deliveries are made one by one."""
        return _CANONICAL.encode(dict(self.target))

    @cached_property
    def digest(self) -> str:
        """The short, stable identity of this route: 32 hex digits."""
        whole = _PLAIN.encode([self.engine, self.target_id, self.idempotency_key])
        return hashlib.sha256(whole.encode()).hexdigest()[:32]


_GENERATE = f"give the relay and everyone who asks through it the same random secret, for instance from: {GENERATE}"
_EARLIER = (
    "A short one of an earlier release is not accepted as an old secret either: leave it out. Questions asked "
    "with it stay open, and the relay's sweep finds their answers"
)


class RouteSigner:
    """Issues and opens route tokens. The first secret signs. All secrets verify, so that secrets can be rotated.

    Raises:
        SettingsError: there is no secret, or one of them can be guessed.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise SettingsError(
                f"AWAITHUMANS_RELAY_SECRET is not set: the secret that signs callback URLs; {_GENERATE}",
                missing=("AWAITHUMANS_RELAY_SECRET",),
            )
        for number, secret in enumerate(secrets, 1):
            if (weak := weakness(secret)) is not None:
                which = f" (number {number} of {len(secrets)})" if len(secrets) > 1 else ""
                raise SettingsError(f"AWAITHUMANS_RELAY_SECRET{which} {weak}: {_GENERATE}. {_EARLIER}")
        self._callbacks = _Signed(secrets, _CALLBACK_SALT, MAX_TOKEN_CHARS)
        self._registrations = _Signed(secrets, _REGISTRATION_SALT, MAX_PROOF_CHARS)

    def __repr__(self) -> str:
        return "RouteSigner(********)"

    def issue(self, route: Route) -> str:
        """Return the URL-safe token for this route's callback URL. It holds no credential and opens no other endpoint.

        Raises:
            SettingsError: the route is too long for a URL.
        """
        token = self._callbacks.sign(route, {})
        if token is None:
            raise SettingsError(
                f"the route is too long for a URL of {MAX_TOKEN_CHARS} characters: shorten ids or the idempotency key"
            )
        return token

    def prove(self, route: Route, task_id: str | None = None) -> str:
        """Return the bearer token with which the caller of this route registers its wait for this task.

        Args:
            route: Where the answer must go.
            task_id: Id of the task. None: the proof is for a caller that runs again and looks up its open task.

        Raises:
            SettingsError: the route is too long for a header.
        """
        proof = self._registrations.sign(route, {"w": task_id})
        if proof is None:
            raise SettingsError(
                f"the route is too long for a header of {MAX_PROOF_CHARS} characters: shorten ids or the idempotency "
                "key"
            )
        return proof

    def open(self, token: str) -> Route:
        """Return the route in the token of a callback URL.

        Raises:
            CallbackRejectedError: 401 for every kind of invalid token.
        """
        return self.read(self.verify(token))

    def verify(self, token: str) -> bytes:
        """Return the content of a token with a valid signature, for `read`. Nothing of it is decoded yet.

        Raises:
            CallbackRejectedError: 401: the signature is not valid.
        """
        return self._callbacks.verify(token)

    def read(self, verified: bytes) -> Route:
        """Return the route in content that `verify` has returned.

        Raises:
            CallbackRejectedError: 401: the signed content is not a route.
        """
        return _route(self._callbacks.read(verified))

    def open_proof(self, proof: str, task_id: str | None = None) -> Route:
        """Return the route in a proof that was made for this task.

        With `task_id` None, the proof must have been made for looking up the open task of the route.

        Raises:
            CallbackRejectedError: 401 for every kind of invalid proof.
        """
        held = self._registrations.read(self._registrations.verify(proof))
        match held:
            case {"w": None | str() as named} if named == task_id:
                return _route(held)
            case _:
                raise _refused()

    def knows(self, token: str) -> bool:
        """Whether the token is signed with one of the secrets."""
        try:
            self.verify(token)
        except CallbackRejectedError:
            return False
        return True


def _refused() -> CallbackRejectedError:
    return CallbackRejectedError(WRONG_RELAY_SECRET, http_status=401)


def _route(held: "JsonValue") -> Route:
    match held:
        case {"e": str(engine), "t": dict(target), "k": str(key), **more}:
            traceparent, encoded, asked_at, caller = more.get("p"), more.get("c"), more.get("a"), more.get("u")
            return Route(
                engine,
                {str(name): str(value) for name, value in target.items()},
                key,
                traceparent if isinstance(traceparent, str) and len(traceparent) <= MAX_TRACEPARENT_CHARS else None,
                encoded if isinstance(encoded, bool) else None,
                {str(name): str(value) for name, value in asked_at.items()} if isinstance(asked_at, dict) else None,
                {str(name): str(value) for name, value in caller.items()} if isinstance(caller, dict) else None,
            )
        case _:
            raise _refused()


class _Signed:
    """Signs and verifies routes, and the values bound to them, under one salt."""

    def __init__(self, secrets: Sequence[str], salt: bytes, most: int) -> None:
        self._serializer = _serializer(secrets, salt)
        self._signer = self._serializer.make_signer()
        self._most = most

    def sign(self, route: Route, bound: Mapping[str, str | None]) -> str | None:
        """Return the signed text for URLs and headers; None if it is too long even without the trace and `asked_at`."""
        held: dict[str, object] = {"e": route.engine, "t": dict(route.target), "k": route.idempotency_key, **bound}
        if route.encoded is not None:
            held["c"] = route.encoded
        if route.caller:
            held["u"] = dict(route.caller)
        traced = {"p": route.traceparent} if route.traceparent else {}
        found = {"a": dict(route.asked_at)} if route.asked_at else {}
        for each in (held | found | traced, held | found, held):
            signed = self._serializer.dumps(each)
            text = signed.decode() if isinstance(signed, bytes) else signed
            if len(text) <= self._most:
                return text
        return None

    def verify(self, text: str) -> bytes:
        """Return the content of a text with a valid signature, for `read`. Nothing of it is decoded yet.

        Raises:
            CallbackRejectedError: 401: the signature is not valid.
        """
        from itsdangerous import BadSignature

        if len(text) > self._most or not _SHAPE.fullmatch(text):
            raise _refused()
        try:
            return self._signer.unsign(text)
        except BadSignature:
            raise _refused() from None

    def read(self, verified: bytes) -> "JsonValue":
        """Decode content that `verify` has returned.

        Raises:
            CallbackRejectedError: 401: the content cannot be decoded.
        """
        from itsdangerous import BadData

        try:
            held: JsonValue = self._serializer.load_payload(verified)
        except BadData:
            raise _refused() from None
        return held


def _serializer(secrets: Sequence[str], salt: bytes) -> "URLSafeSerializer":
    # Imported here because workflows use Route but no signer, and must not load this module into their sandbox.
    from itsdangerous import URLSafeSerializer
    from itsdangerous.encoding import base64_encode

    class Tokens(URLSafeSerializer):
        """Omits the dot that itsdangerous puts before compressed data, since many proxies refuse such paths."""

        def dump_payload(self, obj: Any) -> bytes:
            plain = json.dumps(obj, separators=(",", ":")).encode()
            return base64_encode(plain if len(plain) <= _LONG_BYTES else min(plain, zlib.compress(plain), key=len))

        def load_payload(self, payload: bytes, *args: Any, **options: Any) -> Any:
            marked = b"." + payload if payload.startswith(_ZLIB) else payload
            return super().load_payload(marked, *args, **options)

    oldest_first = [secret.encode() for secret in reversed(secrets)]
    return Tokens(oldest_first, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})
