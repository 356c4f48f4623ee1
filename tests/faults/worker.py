"""The Temporal worker: `python -m tests.faults.worker ADDRESS QUEUE`, with settings from the environment.

An answer is recorded with one line in a file. A process that is killed is not waited for.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from benchmarks._workflows_many import AskByActivity, AskBySignal, record_answer
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin


async def work(address: str, queue: str) -> None:
    client = await Client.connect(address, plugins=[HumanTasksPlugin()])
    with ThreadPoolExecutor(4) as threads:
        worker = Worker(
            client,
            task_queue=queue,
            workflows=[AskBySignal, AskByActivity],
            activities=[record_answer],
            activity_executor=threads,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        )
        await worker.run()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
