"""Payload codecs that encrypt or compress, and external storage, as used between workflows and Temporal."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from cryptography.fernet import Fernet
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    PayloadCodec,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)


class Encrypting(PayloadCodec):
    """A codec that encrypts every payload with a key made at run time.

    Args:
        strict: Refuse unencrypted payloads. Otherwise they pass, as in many codecs during the introduction.
    """

    def __init__(self, key: bytes, *, strict: bool) -> None:
        self._fernet = Fernet(key)
        self._strict = strict

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/encrypted"}, data=self._fernet.encrypt(payload.SerializeToString()))
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._decoded(payload) for payload in payloads]

    def _decoded(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") == b"binary/encrypted":
            return Payload.FromString(self._fernet.decrypt(payload.data))
        if self._strict:
            raise ValueError("a payload is not encrypted")
        return payload


class Compressing(PayloadCodec):
    """A codec that compresses every payload."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/zlib"}, data=zlib.compress(payload.SerializeToString()))
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(zlib.decompress(payload.data))
            if payload.metadata.get("encoding") == b"binary/zlib"
            else payload
            for payload in payloads
        ]


class Folder(StorageDriver):
    """External storage that keeps payloads as files of a folder, which relay and workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name(self) -> str:
        return "folder"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        return [self._stored(payload) for payload in payloads]

    def _stored(self, payload: Payload) -> StorageDriverClaim:
        name = uuid4().hex
        (self._folder / name).write_bytes(payload.SerializeToString())
        return StorageDriverClaim({"file": name})

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        return [Payload.FromString((self._folder / claim.claim_data["file"]).read_bytes()) for claim in claims]
