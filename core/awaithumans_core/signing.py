"""Webhook keys: derive, sign, verify. Sign stands beside verify so that one cannot change without the other.

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
"""What may be around the value of an HTTP header without being part of it (RFC 9110); not every parser removes it."""
KEY_BYTES = 32
"""Size of root and derived keys: HMAC-SHA256's own."""

_SALT, _INFO = b"awaithumans-webhook-v1", b"v1"
_PREFIX = "sha256="
UNSIGNED = "the body is not signed with the server's key (AWAITHUMANS_WEBHOOK_KEY or AWAITHUMANS_PAYLOAD_KEY)"
"""What a refusal says."""


def hkdf_sha256(ikm: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869: extract, then expand."""
    key = hmac.digest(salt, ikm, hashlib.sha256)
    block, okm = b"", b""
    for counter in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), hashlib.sha256)
        okm += block
    return okm[:length]


def derive_webhook_key(payload_key: str) -> bytes:
    """The webhook key that belongs to an `AWAITHUMANS_PAYLOAD_KEY`.

    That one is base64 of 32 bytes; urlsafe or standard, padded or not.
    """
    return hkdf_sha256(_decode(payload_key, "AWAITHUMANS_PAYLOAD_KEY"), salt=_SALT, info=_INFO, length=KEY_BYTES)


def sign(body: bytes, key: bytes) -> str:
    """The `X-Awaithumans-Signature` value of a body: `sha256=` and 64 lower-case hex digits."""
    return _PREFIX + hmac.new(key, body, hashlib.sha256).hexdigest()


class KeyRing:
    """The webhook keys that are accepted: one, or during a rotation the new one and the old one."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise SettingsError(
                "no webhook key: set AWAITHUMANS_WEBHOOK_KEY (derived) or AWAITHUMANS_PAYLOAD_KEY (the server's own), "
                "so that callbacks can be verified"
            )
        if any(len(key) != KEY_BYTES for key in keys):
            raise SettingsError(f"a webhook key must be {KEY_BYTES} bytes")
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    @classmethod
    def of(cls, *, webhook_keys: Iterable[str] = (), payload_keys: Iterable[str] = ()) -> "KeyRing":
        """Build from settings: derived keys (base64) and root keys (base64), in any number."""
        derived = [_decode(key, "AWAITHUMANS_WEBHOOK_KEY") for key in webhook_keys]
        return cls([*derived, *(derive_webhook_key(key) for key in payload_keys)])

    def signed(self, body: bytes, signature: str | None) -> bool:
        """Whether one of the keys made this signature. Constant time in the signature."""
        given = (signature or "").encode("utf-8", "replace")
        matches = [hmac.compare_digest(sign(body, key).encode(), given) for key in self._keys]
        return any(matches)

    def sign(self, body: bytes) -> str:
        """The signature of a body by the first key, as the server would make it."""
        return sign(body, self._keys[0])

    def verify(self, body: bytes, signature: str | None) -> None:
        """Raise `CallbackRejectedError` (401) unless one of the keys made this signature."""
        if not self.signed(body, signature):
            raise CallbackRejectedError(UNSIGNED, http_status=401)


_MEND = (
    "give the server's own AWAITHUMANS_PAYLOAD_KEY (`awaithumans dev` keeps it in payload.key), or as "
    "AWAITHUMANS_WEBHOOK_KEY what `awaithumans-relay derive-key` makes of it"
)


def _decode(text: str, name: str) -> bytes:
    """Both base64 alphabets, padding optional.

    Anything else is a settings mistake, told without repeating the value.
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
