"""Callbacks as the awaithumans server sends them, and the waits for which they are sent."""

import asyncio
import json
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from awaithumans_core import Route, Settings
from awaithumans_core.signing import SIGNATURE_HEADER, TASK_ID_HEADER, derive_webhook_key, sign
from awaithumans_relay.store import Store
from benchmarks._load_sender import request

TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Callback:
    """A signed callback: an answered task and the route of its caller."""

    route: Route
    body: bytes
    headers: dict[str, str]
    task_id: str


def callback_for(route: Route, payload_key: str) -> Callback:
    task_id = uuid.uuid4().hex
    ended = {
        "task_id": task_id,
        "idempotency_key": route.idempotency_key,
        "status": "completed",
        "response": {"approved": True, "note": "as agreed on the phone"},
        "completed_at": datetime.now(UTC).replace(tzinfo=None).isoformat(),
        "timed_out_at": None,
        "completed_by_email": "anna@example.com",
        "completed_via_channel": "dashboard",
        "verification_attempt": 0,
    }
    body = json.dumps(ended).encode()
    headers = {SIGNATURE_HEADER: sign(body, derive_webhook_key(payload_key)), TASK_ID_HEADER: task_id}
    return Callback(route, body, headers, task_id)


def new_callbacks(engine: str, count: int, payload_key: str) -> list[Callback]:
    """Create callbacks, each for a different workflow."""
    ids = [secrets.token_hex(12) for _ in range(count)]
    routes = [
        Route(engine, {"namespace": "default", "workflow_id": f"order-{each}"}, f"bench:default:order-{each}")
        for each in ids
    ]
    return [callback_for(route, payload_key) for route in routes]


async def register(callbacks: Sequence[Callback], store: Store) -> None:
    """Register the waits, as callers do when they ask."""
    waits = (store.intake.register(each.task_id, each.route, TIMEOUT_SECONDS) for each in callbacks)
    await asyncio.gather(*waits)


def relay_requests(callbacks: Sequence[Callback], settings: Settings) -> list[str]:
    signer = settings.signer()
    return [request(f"/callbacks/{signer.issue(each.route)}", each.body, each.headers) for each in callbacks]


def requests_to(path: str, callbacks: Sequence[Callback]) -> list[str]:
    return [request(path, each.body, each.headers) for each in callbacks]
