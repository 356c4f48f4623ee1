"""Answer through the server's API, as the dashboard does. What the server was too busy for is asked again or told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx

Answering = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""The response to a task."""

PAGE = 200
TAKEN = range(200, 300)
BEFORE = 409
"""The server has an answer: from the try before, whose reply was lost, as nobody else answers."""
AT_ONCE = 8
TRIES = 20
TRY_AGAIN_SECONDS = 0.5


async def open_tasks(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Every task that has not ended, in the order of their questions."""
    found: list[dict[str, Any]] = []
    while True:
        page = await _listed(http, len(found))
        if page is None:
            await asyncio.sleep(0.5)
            continue
        found += page
        if len(page) < PAGE:
            return sorted((task for task in found if not task["completed_at"]), key=lambda task: str(task["task"]))


async def _listed(http: httpx.AsyncClient, offset: int) -> list[dict[str, Any]] | None:
    """A page of tasks. None: the server was too busy."""
    with suppress(httpx.HTTPError):
        page = await http.get("/api/tasks", params={"limit": PAGE, "offset": offset})
        return list(page.raise_for_status().json())
    return None


async def answered(http: httpx.AsyncClient, task: Mapping[str, Any], response: Mapping[str, Any]) -> bool:
    """Whether the server has taken the answer. One it was too busy to take is not counted."""
    return await _completed(http, task, response) in TAKEN


async def answer_all(http: httpx.AsyncClient, tasks: Sequence[Mapping[str, Any]], answer: Answering) -> int:
    """Several at once, and each until the server has it or has been too busy too often; how many it has."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(task: Mapping[str, Any]) -> bool:
        async with gate:
            for _ in range(TRIES):
                if await _completed(http, task, answer(task)) in {*TAKEN, BEFORE}:
                    return True
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            return False

    return sum(await asyncio.gather(*map(one, tasks)))


async def _completed(http: httpx.AsyncClient, task: Mapping[str, Any], response: Mapping[str, Any]) -> int | None:
    """The status of the reply, if there was one."""
    with suppress(httpx.RequestError):
        done = await http.post(f"/api/tasks/{task['id']}/complete", json={"response": dict(response)})
        return done.status_code
    return None
