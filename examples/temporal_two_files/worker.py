"""A worker whose workflows are started by another program, `starter.py`.

awaithumans-relay dev                             # terminal 1
python -m examples.temporal_two_files.worker      # terminal 2
python -m examples.temporal_two_files.starter     # terminal 3
"""

import asyncio
import os
from datetime import date
from decimal import Decimal

from pydantic import BaseModel, Field
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, await_human

TASK_QUEUE = "invoices"


class Invoice(BaseModel):
    number: str
    amount: Decimal
    due: date


class Decision(BaseModel):
    approved: bool = Field(title="Pay this invoice?")


class Payment(BaseModel):
    paid: Decimal
    on: date


@workflow.defn
class InvoiceWorkflow:
    @workflow.run
    async def run(self, invoice: Invoice) -> Payment:
        decision = await await_human(
            task=f"Pay invoice {invoice.number}?", payload=invoice, response_schema=Decision, timeout_seconds=24 * 3600
        )
        return Payment(paid=invoice.amount if decision.approved else Decimal(0), on=invoice.due)


async def main() -> None:
    address = os.environ.get("TEMPORAL_ADDRESS", "localhost:7233")
    client = await Client.connect(address, plugins=[HumanTasksPlugin()])
    await Worker(client, task_queue=TASK_QUEUE, workflows=[InvoiceWorkflow]).run()


if __name__ == "__main__":
    asyncio.run(main())
