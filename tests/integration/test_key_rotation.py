"""Both keys are rotated as an operator does it, and no callback or registration is refused meanwhile."""

import asyncio
import base64
import itertools
import json
import secrets
from collections import Counter
from pathlib import Path

import httpx
import pytest
from devservers import Process, free_port, tool

from awaithumans_core import Route
from awaithumans_core.route import RouteSigner
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay.store import Store
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.edges

GONE = "127.0.0.1:9"
"""Address without a server: these tests wake no caller, only count accepted answers."""


class RelayOf:
    """A relay from its command line, with the server's keys in full or only derived ones."""

    def __init__(self, folder: Path, database: str, *, derived: bool) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._database, self._derived = folder, database, derived
        self._process = Process([], folder)

    async def roll(self, relay_secrets: list[str], payload_keys: list[str]) -> None:
        """Restart the relay with these keys."""
        await asyncio.to_thread(self._process.stop)
        derived = [base64.b64encode(derive_webhook_key(key)).decode() for key in payload_keys]
        keys = {"WEBHOOK_KEY": derived} if self._derived else {"PAYLOAD_KEY": payload_keys}
        env = {f"AWAITHUMANS_{name}": ",".join(given) for name, given in keys.items()}
        env |= {"AWAITHUMANS_RELAY_SECRET": ",".join(relay_secrets), "AWAITHUMANS_ADMIN_API_TOKEN": "none"}
        arguments = ["--port", str(self.port), "--temporal", GONE, "--database", self._database]
        self._process = Process([tool("awaithumans-relay"), "serve", *arguments], self._folder, env)
        self._process.start()
        await self._process.answers(f"{self.url}/healthz")

    def stop(self) -> None:
        self._process.stop()


class Sender:
    """The awaithumans server and its callers behind a round-robin load balancer that skips stopped relays."""

    def __init__(self, relays: list[RelayOf], secret: str, payload_key: str) -> None:
        self.urls = itertools.cycle([relay.url for relay in relays])
        self.secrets = [secret]
        """Signing secrets in use: a caller from before the rotation has a URL signed with the old secret."""
        self.payload_key = payload_key
        self.replies: Counter[int] = Counter()
        self.registrations: Counter[int] = Counter()

    async def flow(self) -> None:
        async with httpx.AsyncClient() as http:
            for number in itertools.count():
                route = Route("temporal", {"namespace": "default", "workflow_id": f"w-{number}"}, f"q-{number}")
                said = {"task_id": f"t-{number}", "idempotency_key": f"q-{number}", "status": "timed_out"}
                body = json.dumps(said).encode()
                signer = RouteSigner([self.secrets[number % len(self.secrets)]])
                token, proof = signer.issue(route), signer.prove(route, f"t-{number}")
                while not await self._registered(http, f"/waits/t-{number}", proof):
                    await asyncio.sleep(0)
                signature = sign(body, derive_webhook_key(self.payload_key))
                while not await self._sent(http, f"/callbacks/{token}", body, signature):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.01)

    async def _registered(self, http: httpx.AsyncClient, path: str, proof: str) -> bool:
        try:
            bearer = {"Authorization": f"Bearer {proof}"}
            reply = await http.put(next(self.urls) + path, json={"timeout_seconds": 900}, headers=bearer)
        except httpx.TransportError:
            return False
        self.registrations[reply.status_code] += 1
        return True

    async def _sent(self, http: httpx.AsyncClient, path: str, body: bytes, signature: str) -> bool:
        try:
            url = next(self.urls) + path
            reply = await http.post(url, content=body, headers={"X-Awaithumans-Signature": signature})
        except httpx.TransportError:
            return False
        self.replies[reply.status_code] += 1
        return True


async def test_rotation_of_both_keys_refuses_no_callback(postgres: PostgresServer, tmp_path: Path) -> None:
    """First each relay accepts the new keys, then every sender signs with them, then the old ones are removed."""
    database = postgres.database()
    old, new = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    old_key, new_key = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    relays = [RelayOf(tmp_path / str(derived), database, derived=derived) for derived in (True, False)]
    sender, store = Sender(relays, old, old_key), Store(database)
    try:
        await asyncio.gather(*(relay.roll([old], [old_key]) for relay in relays))
        flowing = asyncio.create_task(sender.flow())
        for relay in relays:
            await relay.roll([old, new], [old_key, new_key])
        sender.payload_key, sender.secrets = new_key, [old, new]
        await asyncio.sleep(0.3)  # for a while both kinds of callback URL are in use
        sender.secrets = [new]  # the last question with an old callback URL has ended
        for relay in relays:
            await relay.roll([new], [new_key])
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        assert set(sender.replies) == set(sender.registrations) == {200}
        stored = sum((await store.queries.counts()).values())
        assert sender.replies.total() <= stored <= sender.replies.total() + len(relays) * 2 + 1
        assert sender.replies.total() > 50
    finally:
        for relay in relays:
            await asyncio.to_thread(relay.stop)
        await store.stop()
