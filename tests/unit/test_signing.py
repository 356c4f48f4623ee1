"""Webhook keys and signatures: standard test vectors, values of the real server, and what must be refused."""

import base64
import secrets

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from awaithumans_core.errors import CallbackRejectedError, SettingsError
from awaithumans_core.signing import KEY_BYTES, KeyRing, derive_webhook_key, hkdf_sha256, sign

BODY = b'{"task_id":"t1"}'
NEW, OLD, FOREIGN = (secrets.token_bytes(KEY_BYTES) for _ in range(3))
TRUE = sign(BODY, NEW)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).filter(lambda key: len(set(key)) > 1)


def spellings(key: bytes) -> list[str]:
    """Return a key in every base64 form in which it may be written."""
    padded = [base64.standard_b64encode(key).decode(), base64.urlsafe_b64encode(key).decode()]
    return [*padded, *(text.rstrip("=") for text in padded), f"  {padded[0]}\n"]


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "okm"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22,
            "",
            "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
    ids=["case 1", "case 2", "case 3"],
)
def test_hkdf_matches_rfc_5869(ikm: str, salt: str, info: str, okm: str) -> None:
    """The three SHA-256 test cases of RFC 5869, appendix A, are reproduced."""
    length = len(okm) // 2
    made = hkdf_sha256(bytes.fromhex(ikm), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length)
    assert made.hex() == okm


def test_key_and_signature_match_the_server() -> None:
    """The derived key and the signature equal those of the awaithumans server (0.1.11)."""
    key = derive_webhook_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    assert key.hex() == "fec0c9cec3dbf3e6764848739ab646cabd1230ee9a9c87cf4d9626ff827fb9b4"
    assert sign(BODY, key) == "sha256=bed9bb7144d23814201d591efc48f1a14a1bc4c3a7712f11ee5b9fc093f19a33"


@given(keys)
@example(b"\xfb\xff" * 16)
def test_key_is_accepted_in_every_base64_form(key: bytes) -> None:
    """Urlsafe or standard, padded or not, with surrounding blanks: all are the same key."""
    assert len({derive_webhook_key(text) for text in spellings(key)}) == 1


@given(keys, keys)
def test_different_root_keys_derive_different_keys(one: bytes, other: bytes) -> None:
    """No two root keys share a webhook key, and none equals its own."""
    assume(one != other)
    derived = {derive_webhook_key(base64.b64encode(key).decode()) for key in (one, other)}
    assert len(derived | {one, other}) == 4


@given(st.binary(max_size=80).filter(lambda key: len(key) != KEY_BYTES))
def test_key_of_wrong_size_is_refused(key: bytes) -> None:
    """A key that lost characters in copying is a settings error whose text names the setting and hides the key."""
    text = base64.b64encode(key).decode()
    with pytest.raises(SettingsError, match="AWAITHUMANS_PAYLOAD_KEY ") as raised:
        derive_webhook_key(text)
    assert len(text) < 8 or text.rstrip("=") not in str(raised.value)


@pytest.mark.parametrize("name", ["webhook_keys", "payload_keys"])
def test_key_of_one_repeated_byte_is_refused(name: str) -> None:
    """Such a key can be guessed; the text names the setting and shows how to generate a good one."""
    repeated = base64.b64encode(b"k" * KEY_BYTES).decode()
    with pytest.raises(SettingsError, match=f"AWAITHUMANS_{name.upper().removesuffix('S')} repeats") as raised:
        KeyRing.of(**{name: [repeated]})
    assert "secrets.token_urlsafe(32)" in str(raised.value)
    assert repeated not in str(raised.value)


@given(st.text(min_size=4).filter(lambda text: not text.isalnum()))
@example("this is no base64 of anything at all!!")
@example("ключ" * 11)
@example("A" * 20 + "=" + "A" * 22)
@example("A" * 20 + "!" + "A" * 23)
@example("A" * 20 + " " + "A" * 23)
@example("A" * 43 + "X")
@example("\x00" * 44)
def test_key_that_is_not_base64_is_refused(text: str) -> None:
    """Any other value is a typed error that does not repeat it."""
    with pytest.raises(SettingsError, match="AWAITHUMANS_PAYLOAD_KEY ") as raised:
        derive_webhook_key(text)
    assert text not in str(raised.value).replace("AWAITHUMANS_PAYLOAD_KEY", "")


@given(keys, st.binary())
def test_signed_body_is_verified(key: bytes, body: bytes) -> None:
    """A signature made by `sign` is accepted by `verify` for every body."""
    KeyRing([key]).verify(body, sign(body, key))


@pytest.mark.parametrize("key", [NEW, OLD], ids=["the new key", "the old key"])
def test_both_keys_are_accepted_during_rotation(key: bytes) -> None:
    """Callbacks signed before and after the change of keys are accepted."""
    KeyRing([NEW, OLD]).verify(BODY, sign(BODY, key))


def test_old_key_is_refused_after_rotation() -> None:
    """A removed key verifies nothing."""
    with pytest.raises(CallbackRejectedError):
        KeyRing([NEW]).verify(BODY, sign(BODY, OLD))


def test_foreign_key_is_refused() -> None:
    """A ring of two keys accepts no third one."""
    with pytest.raises(CallbackRejectedError) as raised:
        KeyRing([NEW, OLD]).verify(BODY, sign(BODY, FOREIGN))
    assert raised.value.http_status == 401


@given(st.binary())
def test_signature_is_valid_for_its_body_only(other: bytes) -> None:
    """A correct signature of another body is refused."""
    assume(other != BODY)
    with pytest.raises(CallbackRejectedError) as raised:
        KeyRing([NEW]).verify(other, TRUE)
    assert raised.value.http_status == 401


@given(st.none() | st.text() | st.text(st.characters(categories=["Cs", "Nd", "L"])))
@example(None)
@example("")
@example("sha256=")
@example(TRUE.removeprefix("sha256="))
@example(TRUE.upper())
@example("sha256=" + TRUE.removeprefix("sha256=").upper())
@example("SHA256=" + TRUE.removeprefix("sha256="))
@example("sha256:" + TRUE.removeprefix("sha256="))
@example("sha512=" + TRUE.removeprefix("sha256="))
@example(TRUE[:-1])
@example(TRUE + "0")
@example(f" {TRUE}")
@example(f"{TRUE}\n")
@example(f"{TRUE},{TRUE}")
@example(TRUE.replace("0", "\u0660").replace("1", "\uff11"))
@example(TRUE[:-1] + "\ud800")
@example(TRUE + "\x00")
def test_malformed_signature_header_is_refused(header: str | None) -> None:
    """Only the exact signature is accepted, and everything else ends in the same 401."""
    assume(header != TRUE)
    with pytest.raises(CallbackRejectedError) as raised:
        KeyRing([NEW]).verify(BODY, header)
    assert raised.value.http_status == 401


@given(st.integers(0, len(TRUE) - 1), st.characters())
def test_signature_with_one_changed_character_is_refused(place: int, character: str) -> None:
    """No part of the header is optional or ignored."""
    header = TRUE[:place] + character + TRUE[place + 1 :]
    assume(header != TRUE)
    with pytest.raises(CallbackRejectedError):
        KeyRing([NEW]).verify(BODY, header)


def test_key_ring_needs_a_key() -> None:
    """An empty ring is refused, and the text names the setting."""
    with pytest.raises(SettingsError, match=r"AWAITHUMANS_WEBHOOK_KEY .*AWAITHUMANS_PAYLOAD_KEY"):
        KeyRing([])


@pytest.mark.parametrize("key", [b"", NEW[:-1], NEW + b"\0"], ids=["empty", "short", "long"])
def test_key_ring_refuses_truncated_keys(key: bytes) -> None:
    """A truncated key is refused even beside a valid one."""
    with pytest.raises(SettingsError, match="32 bytes"):
        KeyRing([NEW, key])


def test_key_ring_accepts_derived_and_root_keys() -> None:
    """Derived keys are used as they are, and root keys are derived first."""
    derived, root = (base64.b64encode(key).decode() for key in (NEW, OLD))
    ring = KeyRing.of(webhook_keys=[derived], payload_keys=[root])
    ring.verify(BODY, sign(BODY, NEW))
    ring.verify(BODY, sign(BODY, derive_webhook_key(root)))
    with pytest.raises(CallbackRejectedError):
        ring.verify(BODY, sign(BODY, OLD))


@pytest.mark.parametrize("name", ["webhook_keys", "payload_keys"])
def test_malformed_key_is_named_and_not_repeated(name: str) -> None:
    """The text names the setting and hides its value."""
    with pytest.raises(SettingsError, match=f"AWAITHUMANS_{name.upper().removesuffix('S')} ") as raised:
        KeyRing.of(**{name: ["c2VjcmV0IHNlY3JldA=="]})
    assert "c2VjcmV0" not in str(raised.value)


def test_repr_shows_number_of_keys_only() -> None:
    """The representation of a ring in a log or traceback shows how many keys it has, and none of them."""
    shown = repr(KeyRing([NEW, OLD])) + str(KeyRing([NEW, OLD]))
    assert shown == "KeyRing(2 keys)" * 2
