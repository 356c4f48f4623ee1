"""Answers given through the server's API, as the dashboard gives them. Requests that fail are repeated or reported."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx

ResponseTo = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Returns the response to a task."""

PAGE = 200
ACCEPTED = range(200, 300)
ALREADY_ENDED = 409
"""Status of a task that has ended: it was completed by an earlier attempt whose reply was lost."""
CONCURRENCY = 8
MAX_TRIES = 20
RETRY_SECONDS = 0.5


async def open_tasks(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return every task that has not ended, sorted by question."""
    found: list[dict[str, Any]] = []
    while True:
        page = await _page(http, len(found))
        if page is None:
            await asyncio.sleep(0.5)
            continue
        found += page
        if len(page) < PAGE:
            return sorted((task for task in found if not task["completed_at"]), key=lambda task: str(task["task"]))


async def _page(http: httpx.AsyncClient, offset: int) -> list[dict[str, Any]] | None:
    """Return a page of tasks, or None if the request failed."""
    with suppress(httpx.HTTPError):
        page = await http.get("/api/tasks", params={"limit": PAGE, "offset": offset})
        return list(page.raise_for_status().json())
    return None


async def answer_task(http: httpx.AsyncClient, task: Mapping[str, Any], response: Mapping[str, Any]) -> bool:
    """Send the answer to a task once and return whether the server accepted it."""
    return await _complete(http, task, response) in ACCEPTED


async def answer_all(http: httpx.AsyncClient, tasks: Sequence[Mapping[str, Any]], response: ResponseTo) -> int:
    """Answer all tasks concurrently and with retries. Return the number of answers that the server has accepted."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(task: Mapping[str, Any]) -> bool:
        async with gate:
            for _ in range(MAX_TRIES):
                if await _complete(http, task, response(task)) in {*ACCEPTED, ALREADY_ENDED}:
                    return True
                await asyncio.sleep(RETRY_SECONDS)
            return False

    return sum(await asyncio.gather(*map(one, tasks)))


async def _complete(http: httpx.AsyncClient, task: Mapping[str, Any], response: Mapping[str, Any]) -> int | None:
    """Complete a task and return the status of the reply, or None if there was no reply."""
    with suppress(httpx.RequestError):
        done = await http.post(f"/api/tasks/{task['id']}/complete", json={"response": dict(response)})
        return done.status_code
    return None
