"""python -m tests.browser.pictures: the pictures in the documentation, from real servers in headless Chromium.

The forms are those of the classes that the documentation shows.
"""

import asyncio
import tempfile
from pathlib import Path

from devservers import HumansServer, TemporalServer, started
from pydantic import BaseModel

from awaithumans_core import HumanTask, TaskClient
from tests.browser.dashboard import REVIEWER, Dashboard, reviewing
from tests.browser.scene import IMAGES, Scene, take_pages
from tests.docs.pages import python, run
from tests.support.relay import settings_for

PAGE = "how-to/forms.md"


def classes() -> list[type[BaseModel]]:
    """The response class of each block of the page, which is the last one that it defines."""
    defined = [[value for value in run(block).values() if isinstance(value, type)] for block in python(PAGE)]
    return [[kind for kind in kinds if issubclass(kind, BaseModel)][-1] for kinds in defined]


async def take(dashboard: Dashboard, client: TaskClient, schema: type[BaseModel]) -> None:
    """Ask for an instance of the class, and keep a picture of its form as a person finds it."""
    task = await client.create(HumanTask(task=f"{schema.__name__}?", response_schema=schema, assign_to=REVIEWER))
    await dashboard.open(task.task_id)
    await dashboard.form().screenshot(path=IMAGES / f"form-{schema.__name__.lower()}.png")


async def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "humans").mkdir()
        humans, temporal = HumansServer(folder / "humans"), TemporalServer(folder, ui=True)
        async with started(humans, temporal), reviewing(humans) as dashboard:
            scene = Scene(humans, temporal)
            async with scene.played(humans, folder) as relay:
                assert temporal.ui_port is not None
                await take_pages(dashboard, scene, relay, temporal.ui_port)
                await scene.take_terminals(folder)
            async with TaskClient(settings=settings_for(humans, "http://127.0.0.1:1")) as client:
                for schema in classes():
                    await take(dashboard, client, schema)


if __name__ == "__main__":
    asyncio.run(main())
