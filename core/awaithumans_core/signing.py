"""Webhook keys: derive, sign, verify. Sign is next to verify so that one is not changed without the other.

The awaithumans server signs a callback's raw body with HMAC-SHA256 under a key derived by HKDF-SHA256 (RFC 5869) from
its `AWAITHUMANS_PAYLOAD_KEY`. The derived key alone is enough here, so the server's root key never has to leave the
server.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence

from awaithumans_core.errors import CallbackRejectedError, SettingsError
from awaithumans_core.secret_strength import GENERATE

SIGNATURE_HEADER = "X-Awaithumans-Signature"
TASK_ID_HEADER = "X-Awaithumans-Task-Id"
BLANKS = " \t"
"""Blanks that may surround an HTTP header value without being part of it (RFC 9110). Not every parser removes them."""
KEY_BYTES = 32
"""Size of root and derived keys in bytes: the digest size of HMAC-SHA256."""

_SALT, _INFO = b"awaithumans-webhook-v1", b"v1"
_PREFIX = "sha256="
UNSIGNED = (
    "the body is not signed with this relay's key (AWAITHUMANS_WEBHOOK_KEY or AWAITHUMANS_PAYLOAD_KEY): give the relay "
    "what `awaithumans-relay derive-key` prints on the machine of the awaithumans server"
)
"""Text of the error for a body whose signature is not valid."""


def hkdf_sha256(ikm: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """Derive a key of `length` bytes with HKDF-SHA256 (RFC 5869): extract, then expand."""
    key = hmac.digest(salt, ikm, hashlib.sha256)
    block, okm = b"", b""
    for counter in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), hashlib.sha256)
        okm += block
    return okm[:length]


def derive_webhook_key(payload_key: str) -> bytes:
    """Return the webhook key that belongs to an `AWAITHUMANS_PAYLOAD_KEY`.

    The payload key is base64 of 32 bytes, urlsafe or standard, padded or not.

    Raises:
        SettingsError: it is not base64, has another length, or repeats one byte.
    """
    return hkdf_sha256(_decode(payload_key, "AWAITHUMANS_PAYLOAD_KEY"), salt=_SALT, info=_INFO, length=KEY_BYTES)


def sign(body: bytes, key: bytes) -> str:
    """Return the `X-Awaithumans-Signature` value of a body: `sha256=` and 64 lower-case hex digits."""
    return _PREFIX + hmac.new(key, body, hashlib.sha256).hexdigest()


class KeyRing:
    """The accepted webhook keys: one key, or during a rotation the new one and the old one."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise SettingsError(
                "AWAITHUMANS_WEBHOOK_KEY is not set: the key that proves that a callback is from your awaithumans "
                "server. Run `awaithumans-relay derive-key` on the server's machine, or give the server's own key as "
                "AWAITHUMANS_PAYLOAD_KEY (`awaithumans dev` keeps it in payload.key beside its database)",
                missing=("AWAITHUMANS_WEBHOOK_KEY",),
            )
        if any(len(key) != KEY_BYTES for key in keys):
            raise SettingsError(f"a webhook key must be {KEY_BYTES} bytes")
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    @classmethod
    def of(cls, *, webhook_keys: Iterable[str] = (), payload_keys: Iterable[str] = ()) -> "KeyRing":
        """Build a key ring from settings: any number of derived keys and root keys, both in base64."""
        derived = [_decode(key, "AWAITHUMANS_WEBHOOK_KEY") for key in webhook_keys]
        return cls([*derived, *(derive_webhook_key(key) for key in payload_keys)])

    def signed(self, body: bytes, signature: str | None) -> bool:
        """Whether the signature was made with one of the keys. Comparison takes constant time in the signature."""
        given = (signature or "").encode("utf-8", "replace")
        matches = [hmac.compare_digest(sign(body, key).encode(), given) for key in self._keys]
        return any(matches)

    def sign(self, body: bytes) -> str:
        """Return the signature of a body under the first key, as the server would make it."""
        return sign(body, self._keys[0])

    def verify(self, body: bytes, signature: str | None) -> None:
        """Raise `CallbackRejectedError` (401) unless the signature was made with one of the keys."""
        if not self.signed(body, signature):
            raise CallbackRejectedError(UNSIGNED, http_status=401)


_MEND = (
    "give the server's own AWAITHUMANS_PAYLOAD_KEY (`awaithumans dev` keeps it in payload.key), or as "
    "AWAITHUMANS_WEBHOOK_KEY what `awaithumans-relay derive-key` makes of it"
)


def _decode(text: str, name: str) -> bytes:
    """Decode a key in either base64 alphabet, with or without padding.

    Raises:
        SettingsError: it is not base64, has another length, or repeats one byte. The text does not repeat the value.
    """
    compact = text.strip().rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        raw = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SettingsError(f"{name} is not base64: {_MEND}") from None
    if len(raw) != KEY_BYTES:
        raise SettingsError(f"{name} decodes to {len(raw)} bytes; it must be {KEY_BYTES}: {_MEND}")
    if len(set(raw)) == 1:
        raise SettingsError(
            f"{name} repeats one byte, so anyone can guess it: give the server a random AWAITHUMANS_PAYLOAD_KEY, for "
            f"instance from: {GENERATE}; then {_MEND}"
        )
    return raw
