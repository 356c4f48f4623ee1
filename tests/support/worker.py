"""A Temporal worker in a process of its own, which tests may kill: `python -m tests.support.worker ADDRESS QUEUE FILE`.

Its settings come from the environment. Each action appends a line to the file, so a repeated action is seen.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from tests.support.workflows import WORKFLOWS


async def work(address: str, queue: str, acts: Path) -> None:
    @activity.defn
    async def act(name: str) -> None:
        with acts.open("a") as file:
            file.write(f"{name}\n")

    client = await Client.connect(address, plugins=[HumanTasksPlugin()])
    at_once = timedelta(seconds=1)  # a killed worker is not waited for
    worker = Worker(
        client,
        task_queue=queue,
        workflows=WORKFLOWS,
        activities=[act],
        sticky_queue_schedule_to_start_timeout=at_once,
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
