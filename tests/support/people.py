"""The people of the tests, who find a question on the task server and answer it."""

import asyncio
import json
import re
from collections.abc import Callable, Collection
from typing import Any

import httpx

from tests.support.servers import TaskServer


class People:
    def __init__(self, humans: TaskServer) -> None:
        self.humans = humans
        self.http = humans.people()
        self._mail_ready = False

    async def aclose(self) -> None:
        await self.http.aclose()

    async def find(self, question: str, *, count: int = 1, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Return the tasks with exactly this question, once there are `count` of them."""
        return await self._listed(lambda task: task["task"] == question, count, seconds)

    async def by_key(self, key: str, seconds: float = 60.0) -> dict[str, Any]:
        """Return the task with this idempotency key, once it exists."""
        return (await self._listed(lambda task: task["idempotency_key"] == key, 1, seconds))[0]

    async def find_all(self, keys: Collection[str], seconds: float = 60.0) -> list[dict[str, Any]]:
        """Return the tasks with these idempotency keys, once all of them exist."""
        return await self._listed(lambda task: task["idempotency_key"] in keys, len(keys), seconds)

    async def _listed(
        self, matches: Callable[[dict[str, Any]], bool], count: int, seconds: float
    ) -> list[dict[str, Any]]:
        """Poll the server's list until at least `count` tasks match, and return those."""
        async with asyncio.timeout(seconds):
            while True:
                listed = (await self.http.get("/api/tasks", params={"limit": 200})).json()
                found = [task for task in listed if matches(task)]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.1)

    async def task(self, task_id: str) -> dict[str, Any]:
        return dict((await self.http.get(f"/api/tasks/{task_id}")).json())

    async def complete(self, task_id: str, response: dict[str, Any], by: str = "anna@example.com") -> None:
        body = {"response": response, "completed_by_email": by, "completed_via_channel": "dashboard"}
        (await self.http.post(f"/api/tasks/{task_id}/complete", json=body)).raise_for_status()

    async def cancel(self, task_id: str) -> None:
        (await self.http.post(f"/api/tasks/{task_id}/cancel")).raise_for_status()

    async def delete(self, task_id: str) -> None:
        (await self.http.delete(f"/api/tasks/{task_id}")).raise_for_status()

    async def answer(self, question: str, response: dict[str, Any]) -> dict[str, Any]:
        (task,) = await self.find(question)
        await self.complete(task["id"], response)
        return task

    async def mail_address(self) -> str:
        """Return a `notify` entry whose mails are written to a folder."""
        if not self._mail_ready:
            identity = {
                "id": "tests",
                "display_name": "Tests",
                "from_email": "tests@example.com",
                "transport": "file",
                "transport_config": {"dir": str(self.humans.mail)},
            }
            (await self.http.post("/api/channels/email/identities", json=identity)).raise_for_status()
            self._mail_ready = True
        return "email+tests:reviewer@example.com"

    async def click_in_mail(self, question: str, seconds: float = 60.0) -> None:
        """Answer with the first button of the mail about this question, for which the server sends no callback."""
        async with asyncio.timeout(seconds):
            while True:
                for file in self.humans.mail.glob("*.json"):
                    mail = json.loads(file.read_text())
                    found = re.search(r"/api/channels/email/action/[\w.-]+", mail["html"])
                    if question in mail["html"] and found:
                        async with httpx.AsyncClient(base_url=self.humans.url) as browser:
                            (await browser.post(found[0])).raise_for_status()
                        return
                await asyncio.sleep(0.1)
