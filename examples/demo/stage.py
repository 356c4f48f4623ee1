"""The running servers of the demo, the actions of its reviewer, and the timeline that it prints."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import httpx
from devservers import HumansServer, RelayServer, TemporalServer
from rich.console import Console
from rich.markup import escape

from awaithumans_core.safe_text import one_line
from awaithumans_relay.store import Store

REVIEWER = "reviewer@example.com"
MAIL_IDENTITY = "demo"
PATIENCE_SECONDS = 120.0
"""Limit of a scripted scene, which takes about ten seconds."""
HUMAN_PATIENCE_SECONDS = 15 * 60.0

COLOURS = {"workflow": "cyan", "graph": "magenta", "script": "green", "reviewer": "yellow", "relay": "blue"}


class Timeline:
    """Prints events with their time and the part of the system in which they happened."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._since = time.monotonic()

    def scene(self, title: str) -> None:
        self._since = time.monotonic()
        self.console.print(f"\n[bold]{title}[/]")

    def tell(self, who: str, what: str) -> None:
        colour = COLOURS.get(who, "white")
        self.console.print(f"  {time.monotonic() - self._since:5.1f} s  [{colour}]{who:<9}[/] {escape(one_line(what))}")


@dataclass
class Stage:
    """The running servers, and the actions that the scenes take on them."""

    humans: HumansServer
    temporal: TemporalServer
    relay: RelayServer
    waits: Store
    timeline: Timeline
    human: bool
    """Whether a real person answers instead of the scripted reviewer."""

    @property
    def patience(self) -> float:
        return HUMAN_PATIENCE_SECONDS if self.human else PATIENCE_SECONDS

    async def asked(self, words: str) -> dict[str, Any]:
        """Wait for the task whose question contains these words and return it."""
        async with self.humans.people() as people:
            while True:
                for task in (await people.get("/api/tasks", params={"limit": 50})).json():
                    if words in task["task"]:
                        return dict(task)
                await asyncio.sleep(0.1)

    async def answer(self, task: dict[str, Any], response: dict[str, Any]) -> None:
        """Answer a task through the server's API, as the dashboard does."""
        async with self.humans.people() as people:
            body = {"response": response, "completed_by_email": REVIEWER, "completed_via_channel": "dashboard"}
            (await people.post(f"/api/tasks/{task['id']}/complete", json=body)).raise_for_status()

    async def set_up_mail(self) -> None:
        """Configure a mail sender on the server that writes mails to files."""
        identity = {
            "id": MAIL_IDENTITY,
            "display_name": "Demo",
            "from_email": "demo@example.com",
            "transport": "file",
            "transport_config": {"dir": str(self.humans.mail)},
        }
        async with self.humans.people() as people:
            (await people.post("/api/channels/email/identities", json=identity)).raise_for_status()

    async def click_in_mail(self, words: str) -> str:
        """Open the mail about a question and click its first button, as a reviewer does. Return the button's text."""
        while True:
            for file in sorted(self.humans.mail.glob("*.json")):
                mail = json.loads(file.read_text())
                if words in mail["html"] or words in mail.get("subject", ""):
                    path, label = _first_action(mail["html"])
                    async with httpx.AsyncClient(base_url=self.humans.url) as browser:
                        (await browser.post(path)).raise_for_status()
                    return label
            await asyncio.sleep(0.1)

    async def make_operator(self) -> tuple[str, str]:
        """Create the first operator of the dashboard and return e-mail and password."""
        return REVIEWER, await self.humans.make_operator(REVIEWER, "Demo reviewer")

    async def until(self, goal: Awaitable[Any], what: str) -> Any:
        """Wait for the result of `goal` and print every ten seconds that the wait goes on."""
        task = asyncio.ensure_future(goal)
        waited = 0.0
        try:
            while not (await asyncio.wait([task], timeout=10.0))[0]:
                waited += 10.0
                if waited >= self.patience:
                    raise TimeoutError(f"{what}: not done after {waited:.0f} s")
                self.timeline.tell("...", f"{what} ({waited:.0f} s)")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def delivered(self, task_id: str) -> str:
        """Wait until the relay has delivered the answer. Return its source (`callback`, `sweep` or `registration`)."""
        while True:
            for wait in await self.waits.queries.find(task_id):
                if wait.delivered_at is not None:
                    return wait.found_by or ""
            await asyncio.sleep(0.1)


def _first_action(html: str) -> tuple[str, str]:
    found = re.search(r'<a[^>]*href="[^"]*?(/api/channels/email/action/[^"]+)"[^>]*>(.*?)</a>', html, re.DOTALL)
    if found is None:
        raise RuntimeError("the mail has no button")
    return found[1], re.sub(r"<[^>]+>", "", found[2]).strip()
