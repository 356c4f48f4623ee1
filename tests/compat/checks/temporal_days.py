"""A workflow on Temporal's time-skipping server waits three days in both modes, which takes a moment."""

import asyncio
import os
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel
from temporalio import workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from awaithumans_adapters.temporal import await_human
from awaithumans_adapters.temporal.testing import HumansForTemporal


class Decision(BaseModel):
    approved: bool


@workflow.defn
class Refund:
    @workflow.run
    async def run(self, via: Literal["signal", "activity"]) -> float:
        asked = workflow.now()
        decision = await await_human(task="Pay back?", response_schema=Decision, timeout_seconds=10 * 86400, via=via)
        return (workflow.now() - asked) / timedelta(days=1) if decision.approved else 0.0


async def main() -> None:
    server = os.environ["COMPAT_TEST_SERVER"]
    async with (
        await WorkflowEnvironment.start_time_skipping(test_server_existing_path=server) as env,
        HumansForTemporal(env) as humans,
    ):
        humans.answer("Pay back", {"approved": True}).after(timedelta(days=3))
        client = humans.temporal_client
        async with Worker(client, task_queue="refunds", workflows=[Refund]), asyncio.timeout(90):
            for via in ("signal", "activity"):
                waited = await client.execute_workflow(Refund.run, via, id=via, task_queue="refunds")
                assert 3 <= waited < 3.1, waited


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # the SDK may crash an interpreter that ends: github.com/temporalio/sdk-python/issues/300
