"""The probe of `doctor`: an answer for no caller, signed as the server's are, and followed through the relay."""

import asyncio
import json

import httpx

from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import answered_by_proxy
from awaithumans_core.http.clients import async_client, lost_reason, reply_of
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
    except (httpx.RequestError, httpx.InvalidURL) as away:
        raise SettingsError(_silence(settings.relay(), away)) from None
    if sent.status_code != 200 and (proxy := answered_by_proxy(reply_of(sent))) is not None:
        raise SettingsError(
            f"the relay at {settings.relay()} is not reached: {proxy} answers {sent.status_code} in its place. "
            f"{proxy.advice}"
        )
    if sent.status_code != 200:
        raise SettingsError(_refusal(settings.relay(), sent.status_code))
    async with existing_store(database) as store:
        await _arrived(store, task_id, shown_url(database))
    return f"took an answer at {settings.relay()}, stored it and delivered it to nobody"


async def _arrived(store: Store, task_id: str, database: str) -> None:
    try:
        async with asyncio.timeout(ARRIVE_SECONDS):
            while not (found := await store.queries.find(task_id)) or found[0].state != WaitState.DELIVERED:
                if not found:
                    raise SettingsError(
                        f"the relay took the probe, but not into {database}: it keeps its waits in another database. "
                        "Give its own with --database or AWAITHUMANS_RELAY_DATABASE"
                    )
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise SettingsError(
            "the relay stored the probe, but its dispatcher does not deliver it: see its log, and restart it"
        ) from None
    finally:
        for wait in await store.queries.find(task_id):
            await store.upkeep.delete(wait)


def _silence(address: str, away: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(away):
        return (
            f"the certificate at {address} is not trusted here ({away}): give its authority's as SSL_CERT_FILE, to "
            "those who ask and to the awaithumans server, too"
        )
    reason = lost_reason(away) if isinstance(away, httpx.RequestError) else str(away)
    return (
        f"nothing answers at {address} ({reason}): start the relay, or give the address at which "
        "it is reached, with https:// if it serves TLS, as AWAITHUMANS_RELAY_URL"
    )


def _refusal(address: str, status: int) -> str:
    reason = {
        401: "refuses what was signed with the settings here: its AWAITHUMANS_RELAY_SECRET or its webhook key is "
        "another. Run this with the relay's own environment",
        404: "is not the relay: something else answers there, or a proxy does not pass /callbacks on",
        405: "is not the relay: something else answers there, or a proxy does not pass /callbacks on",
        503: "is not running, or its database takes no answer now: see its log",
    }
    if 300 <= status < 400:
        return (
            f"{address} redirects ({status}): the awaithumans server takes that for delivered, and answers are lost. "
            "Give the address it redirects to as AWAITHUMANS_RELAY_URL"
        )
    return f"{address} {reason.get(status, 'does not take an answer: see its log')} ({status})"
