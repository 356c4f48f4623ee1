"""A workflow on a real Temporal server asks in both modes; a relay in another process wakes it."""

import asyncio
import os
import uuid
from typing import Literal

from pydantic import BaseModel
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, await_human


class Decision(BaseModel):
    approved: bool


@workflow.defn
class Refund:
    @workflow.run
    async def run(self, via: Literal["signal", "activity"]) -> bool:
        decision = await await_human(task="Pay back?", response_schema=Decision, timeout_seconds=900, via=via)
        return decision.approved


async def main() -> None:
    client = await Client.connect(os.environ["COMPAT_TEMPORAL"], plugins=[HumanTasksPlugin()])
    queue = uuid.uuid4().hex
    async with Worker(client, task_queue=queue, workflows=[Refund]), asyncio.timeout(90):
        for via in ("signal", "activity"):
            assert await client.execute_workflow(Refund.run, via, id=f"{queue}-{via}", task_queue=queue)


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # the SDK may crash an interpreter that ends: github.com/temporalio/sdk-python/issues/300
