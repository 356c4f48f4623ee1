"""A script that asks about one order and records the answer: `python -m tests.faults.script ORDER`."""

import asyncio
import sys

from benchmarks._workflows_many import Decision, Order, record_answer
from benchmarks.temporal_many import workflow_id

from awaithumans_core import await_human


async def main(order: int) -> None:
    decision = await await_human(
        task=f"Approve order {order}?",
        payload=Order(order=order, amount=250.0),
        response_schema=Decision,
        timeout_seconds=24 * 3600,
        idempotency_key=workflow_id(order),
    )
    record_answer(f"{workflow_id(order)} {decision.approved} {decision.note}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
