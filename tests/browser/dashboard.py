"""The dashboard as a reviewer uses it: log in, open a task, read it, fill in its form, submit."""

import os
import re
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from devservers import HumansServer
from playwright.async_api import Locator, Page, async_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = "No Chromium was found; run: apt-get update && apt-get install -y chromium (or name the program as CHROMIUM)"
REVIEWER = "reviewer@example.com"
SCREENSHOTS = Path(".screenshots")

Entry: TypeAlias = str | Sequence[str] | Path | None
"""What a person enters: a text, the label of a choice, the labels of several choices, a file, or nothing."""


def chromium() -> str | None:
    """Return the path of the browser, or None if the machine has none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


class Dashboard:
    """A logged-in reviewer in a browser."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url

    async def log_in(self, email: str, password: str) -> None:
        """Log in by the form of the login page."""
        await self.page.goto(f"{self._url}/login")
        await self.page.fill("input[type=email]", email)
        await self.page.fill("input[type=password]", password)
        await self.page.keyboard.press("Enter")
        await self.page.wait_for_url(re.compile(r".*(?<!/login)$"))

    async def open(self, task_id: str) -> None:
        """Open the page of a task and wait until its form is there."""
        await self.page.goto(f"{self._url}/task?id={task_id}")
        await self.page.get_by_role("button", name="Submit Response").wait_for()

    async def open_list(self) -> None:
        """Open the list of tasks."""
        await self.page.goto(self._url)

    async def rows(self) -> list[str]:
        """Return the rows under Task Payload, as `path: value`."""
        box = self.page.locator("div.border", has=self.page.get_by_role("heading", name="Task Payload")).last
        rows = box.locator("div.flex.items-start")
        texts = [await row.locator("span").all_inner_texts() for row in await rows.all()]
        return [": ".join(parts) for parts in texts]

    async def fill(self, field: Mapping[str, Any], entry: Entry) -> None:
        """Enter a value into one field of the form.

        Args:
            field: The field, from the `form_definition` of the task.
            entry: What is entered. None leaves the field as it is.
        """
        if entry is None:
            return
        kind, name = field["kind"], field["name"]
        if kind in ("switch", "single_select"):
            await self._field(name).get_by_role("button", name=str(entry), exact=True).click()
        elif kind == "multi_select":
            for label in [entry] if isinstance(entry, str) else entry:  # type: ignore[union-attr]
                await self._field(name).locator("label", has_text=str(label)).locator("input").check()
        elif kind == "table":
            await self._fill_table(name, [entry] if isinstance(entry, str) else list(entry))  # type: ignore[arg-type]
        elif kind == "file_upload":
            await self._field(name).locator("input[type=file]").set_input_files(str(entry))
        else:
            control = self.page.locator(f"[id='{name}']")
            if await control.get_attribute("type") == "number":
                await control.press_sequentially(str(entry))  # as typed: the browser accepts no other characters
            else:
                await control.fill(str(entry))

    async def _fill_table(self, name: str, cells: Sequence[str]) -> None:
        """Enter the cells of one row, from the left."""
        field = self._field(name)
        if not await field.locator("input").count():
            await field.get_by_role("button", name="Add row").click()
        for cell, text in zip(await field.locator("input").all(), cells, strict=True):
            await cell.press_sequentially(text)

    async def submit(self) -> None:
        """Submit the form and wait until the task has ended."""
        await self.page.get_by_role("button", name="Submit Response").click()
        await self.page.get_by_role("heading", name="Your Response").wait_for(state="detached")

    async def screenshot(self, name: str) -> None:
        """Keep a picture of the whole page in a folder that is not part of the repository."""
        SCREENSHOTS.mkdir(exist_ok=True)
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def form(self) -> Locator:
        """Return the part of a task's page in which a person answers."""
        return self.page.locator("div.border", has=self.page.get_by_role("heading", name="Your Response")).last

    def _field(self, name: str) -> Locator:
        return self.page.locator(f"div.space-y-1\\.5:has(> label[for='{name}'])")


@asynccontextmanager
async def reviewing(humans: HumansServer) -> AsyncGenerator[Dashboard]:
    """Yield the dashboard of this server with a new operator logged in.

    Raises:
        SystemExit: the machine has no Chromium; the text is the line to run.
    """
    program = chromium()
    if program is None:
        raise SystemExit(MISSING)
    password = await humans.make_operator(REVIEWER, "Reviewer")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            dashboard = Dashboard(await browser.new_page(viewport={"width": 1100, "height": 900}), humans.url)
            await dashboard.log_in(REVIEWER, password)
            yield dashboard
        finally:
            await browser.close()
