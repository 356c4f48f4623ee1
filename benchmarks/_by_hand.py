"""Activities that do nothing, and activities that ask with two hand-written HTTP calls.

The hand-written calls share one HTTP client and a fixed request body, and they handle no errors.
"""

import asyncio
from functools import cache

import httpx
from temporalio import activity

from awaithumans_core import Route, Settings

BODY = {
    "payload_schema": {
        "properties": {
            "order": {"title": "Order", "type": "integer"},
            "amount": {"title": "Amount", "type": "number"},
        },
        "required": ["order", "amount"],
        "title": "Order",
        "type": "object",
    },
    "response_schema": {
        "properties": {
            "approved": {"title": "Approved", "type": "boolean"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Note"},
        },
        "required": ["approved"],
        "title": "Decision",
        "type": "object",
    },
    "form_definition": {
        "version": 1,
        "fields": [
            {"kind": "switch", "name": "approved", "label": "Approved", "required": True},
            {"kind": "short_text", "name": "note", "label": "Note", "required": False},
        ],
    },
    "timeout_seconds": 3600,
}


@cache
def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient()


@cache
def _settings() -> Settings:
    return Settings.load()


async def _ask(order: int, suffix: str = "") -> str:
    info, settings = activity.info(), _settings()
    assert info.workflow_id
    key = f"{info.workflow_id}{suffix}"
    route = Route("temporal", {"namespace": info.namespace, "workflow_id": info.workflow_id}, key)
    signer = settings.signer()
    task = await _client().post(
        f"{settings.url}/api/tasks",
        json=BODY
        | {
            "task": f"Approve order {order}?",
            "payload": {"order": order, "amount": 250.0},
            "idempotency_key": key,
            "callback_url": f"{settings.relay()}/callbacks/{signer.issue(route)}",
        },
        headers={"Authorization": f"Bearer {settings.token()}"},
    )
    task_id = str(task.raise_for_status().json()["id"])
    wait = await _client().put(
        f"{settings.relay()}/waits/{task_id}",
        json={"timeout_seconds": BODY["timeout_seconds"]},
        headers={"Authorization": f"Bearer {signer.prove(route, task_id)}"},
    )
    wait.raise_for_status()
    return task_id


@activity.defn
async def ask_by_hand(order: int) -> str:
    return await _ask(order)


@activity.defn
async def ask_one_by_hand(order: int) -> str:
    """One of many questions of the same workflow."""
    return await _ask(order, f"-{order}")


@activity.defn
async def ask_by_hand_until_completed(order: int) -> bool:
    await _ask(order)
    activity.raise_complete_async()


@activity.defn
async def do_nothing(order: int) -> int:
    await asyncio.sleep(0)
    return order


@activity.defn
async def do_nothing_until_completed(_: int) -> bool:
    await asyncio.sleep(0)
    activity.raise_complete_async()
