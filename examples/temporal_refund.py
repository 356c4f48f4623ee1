"""A Temporal workflow asks a person and sleeps until the answer comes.

awaithumans-relay dev                 # terminal 1
python -m examples.temporal_refund    # terminal 2, in the same folder
"""

import asyncio
import os
import uuid

from pydantic import BaseModel, Field
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, await_human

TASK_QUEUE = "refunds"


class Refund(BaseModel):
    order: str
    amount: float
    reviewer: str | None = None


class Decision(BaseModel):
    approved: bool = Field(title="Approve this refund?")
    note: str | None = Field(None, title="Note to the customer")


@workflow.defn
class RefundWorkflow:
    @workflow.run
    async def run(self, refund: Refund) -> str:
        decision, outcome = await await_human(
            task=f"Approve ${refund.amount:g} refund for {refund.order}?",
            payload=refund,
            response_schema=Decision,
            timeout_seconds=24 * 3600,
            assign_to=refund.reviewer,
            return_outcome=True,
        )
        who = outcome.completed_by_email or "an unnamed person"
        return f"{'paid' if decision.approved else 'declined'}, decided by {who}"


async def main() -> None:
    address = os.environ.get("TEMPORAL_ADDRESS", "localhost:7233")
    client = await Client.connect(address, plugins=[HumanTasksPlugin()])
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[RefundWorkflow]):
        result = await client.execute_workflow(
            RefundWorkflow.run,
            Refund(order="A-1001", amount=250),
            id=f"refund-{uuid.uuid4()}",
            task_queue=TASK_QUEUE,
        )
    print(result)


if __name__ == "__main__":
    asyncio.run(main())
