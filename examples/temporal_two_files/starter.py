"""Starts workflows of `worker.py`. It asks no person, so it needs neither settings nor a relay.

Its client needs the same plugin as the worker's: without it, Temporal cannot send a `Decimal` or a `date`. Temporal's
`pydantic_data_converter` is enough, too: `Client.connect(address, data_converter=pydantic_data_converter)`.

python -m examples.temporal_two_files.starter
"""

import asyncio
import os
import uuid
from datetime import date
from decimal import Decimal

from temporalio.client import Client

from awaithumans_adapters.temporal import HumanTasksPlugin
from examples.temporal_two_files.worker import TASK_QUEUE, Invoice, InvoiceWorkflow


async def main(number: str) -> None:
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "localhost:7233"), plugins=[HumanTasksPlugin()])
    invoice = Invoice(number=number, amount=Decimal("99.90"), due=date(2030, 1, 31))
    payment = await client.execute_workflow(
        InvoiceWorkflow.run, invoice, id=f"invoice-{invoice.number}", task_queue=TASK_QUEUE
    )
    print(f"{payment.paid} paid on {payment.on} for {invoice.number}")


if __name__ == "__main__":
    asyncio.run(main(f"I-{uuid.uuid4().hex[:8]}"))
