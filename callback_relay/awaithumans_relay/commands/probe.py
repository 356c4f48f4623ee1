"""The probe of `doctor`: an answer for no caller, signed as the server's are, and followed through the relay."""

import asyncio
import json
from contextlib import suppress

import httpx

from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import answered_by_proxy
from awaithumans_core.http.clients import async_client, lost_reason, reply_of
from awaithumans_core.json_values import read_json
from awaithumans_core.services import RELAY, WRONG_RELAY_SECRET
from awaithumans_core.settings import Settings
from awaithumans_core.signing import SIGNATURE_HEADER, TASK_ID_HEADER
from awaithumans_relay.commands.existing_waits import existing_store, shown_url
from awaithumans_relay.dispatch.probe_engine import new_probe
from awaithumans_relay.store import Store, WaitState

SEND_SECONDS = 5.0
ARRIVE_SECONDS = 5.0


async def check_relay(settings: Settings, database: str) -> str:
    """Send the relay an answer for no caller, and check that it arrives."""
    task_id, route = new_probe()
    body = json.dumps(
        {"task_id": task_id, "idempotency_key": route.idempotency_key, "status": "completed", "response": {}}
    ).encode()
    headers = {SIGNATURE_HEADER: settings.key_ring().sign(body), TASK_ID_HEADER: task_id}
    token = settings.signer().issue(route)
    try:
        async with async_client(timeout=SEND_SECONDS) as http:
            sent = await http.post(f"{settings.relay()}/callbacks/{token}", content=body, headers=headers)
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise SettingsError(_no_response(settings.relay(), error)) from None
    if sent.status_code != 200 and (proxy := answered_by_proxy(reply_of(sent))) is not None:
        raise SettingsError(
            f"the relay at {settings.relay()} is not reached: {proxy} answers {sent.status_code} in its place. "
            f"{proxy.advice}"
        )
    if sent.status_code != 200 or not _acknowledges(sent.content):
        raise SettingsError(_refusal(settings.relay(), sent.status_code))
    async with existing_store(database) as store:
        await _arrived(store, task_id, shown_url(database))
    return f"accepted a probe at {settings.relay()}, stored it and delivered it; no caller was woken"


def _acknowledges(body: bytes) -> bool:
    """Whether this is the relay's acknowledgement, and not the page of another service."""
    with suppress(ValueError):
        return read_json(body) == {"state": WaitState.ANSWERED}
    return False


async def _arrived(store: Store, task_id: str, database: str) -> None:
    try:
        async with asyncio.timeout(ARRIVE_SECONDS):
            while not (found := await store.queries.find(task_id)) or found[0].state != WaitState.DELIVERED:
                if not found:
                    raise SettingsError(
                        f"the relay accepted the probe, but not into {database}: it keeps its waits in another "
                        "database. Give that one with --database or AWAITHUMANS_RELAY_DATABASE"
                    )
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise SettingsError(
            "the relay stored the probe, but its dispatcher does not deliver it: check its log, and restart it"
        ) from None
    finally:
        for wait in await store.queries.find(task_id):
            await store.upkeep.delete(wait)


def _no_response(address: str, error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"the certificate at {RELAY.at(address)} is not trusted here ({error}): set SSL_CERT_FILE to the "
            "certificate of its authority, here, for all callers and for the awaithumans server"
        )
    reason = lost_reason(error) if isinstance(error, httpx.RequestError) else str(error)
    return f"{RELAY.name} does not answer at {RELAY.at(address)}: {reason}. {RELAY.if_silent}"


def _refusal(address: str, status: int) -> str:
    at = RELAY.at(address)
    if 300 <= status < 400:
        return (
            f"{at} redirects ({status}): the awaithumans server counts that as delivered, and answers are lost. "
            "Set AWAITHUMANS_RELAY_URL to the address it redirects to"
        )
    if status in _OTHER_SERVICE:
        return f"{at} answers {status} to a callback. {RELAY.if_other}. A proxy before it must forward /callbacks"
    return f"{at} {_REASONS.get(status, 'does not accept an answer: check its log')} ({status})"


_OTHER_SERVICE = frozenset({200, 404, 405, 501})
"""Statuses with which another service answers a callback."""

_REASONS = {
    401: f"refuses a probe that is signed with these settings. Either {WRONG_RELAY_SECRET}; or its webhook key is "
    "different. Run this with the relay's own environment",
    503: "is not running, or its database accepts no answer now: check its log",
}
