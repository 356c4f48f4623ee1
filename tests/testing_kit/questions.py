"""The questions of these tests, and helpers that wait for concurrent events."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx

from awaithumans_core import HumanTask
from awaithumans_core.testing import FakeHumans
from tests.support.decisions import Decision

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
MONTH = timedelta(days=30)
YES = {"approved": True}
NO = {"approved": False}


def question(task: str = "Approve the refund?", **options: Any) -> HumanTask[Decision]:
    return HumanTask(task=task, response_schema=Decision, **options)


def task_body(key: str = "question-1", **fields: Any) -> dict[str, Any]:
    """Return the body of a request that creates a task."""
    return question(idempotency_key=key).body() | fields


def plain_client(humans: FakeHumans, token: str | None = None) -> httpx.AsyncClient:
    """Return an httpx client in process, without the client of this package."""
    headers = {"Authorization": f"Bearer {token or humans.token}"}
    return httpx.AsyncClient(transport=humans.transport(), base_url=humans.url, headers=headers)


async def until(happened: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait on the event loop until the condition holds."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "the condition did not hold in time"
        await asyncio.sleep(0.002)


def until_sync(happened: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait in a thread until the condition holds."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "the condition did not hold in time"
        time.sleep(0.002)


def threads() -> set[threading.Thread]:
    """Return the threads of clocks and servers that are running."""
    return {thread for thread in threading.enumerate() if thread.name in {"virtual-clock", "fake-humans"}}
