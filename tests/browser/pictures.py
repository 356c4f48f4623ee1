"""python -m tests.browser.pictures: the pictures of forms in the documentation, from the classes shown there."""

import asyncio
import tempfile
from pathlib import Path

from devservers import HumansServer, started
from pydantic import BaseModel

from awaithumans_core import HumanTask, TaskClient
from tests.browser.dashboard import REVIEWER, Dashboard, reviewing
from tests.docs.pages import ROOT, python, run
from tests.support.relay import settings_for

PAGE = "how-to/forms.md"
IMAGES = ROOT / "docs/images"


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
    with tempfile.TemporaryDirectory() as folder:
        humans = HumansServer(Path(folder))
        settings = settings_for(humans, "http://127.0.0.1:1")
        async with started(humans), reviewing(humans) as dashboard, TaskClient(settings=settings) as client:
            for schema in classes():
                await take(dashboard, client, schema)


if __name__ == "__main__":
    asyncio.run(main())
