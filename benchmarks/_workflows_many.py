"""Ask a person, then write the answer down: in this order, once each, whatever happens in between."""

import os
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel
from temporalio import activity, workflow

from awaithumans_adapters.temporal import await_human

ANSWERS_FILE = "BENCHMARK_ANSWERS"
"""Name of the environment variable that says where answers are written down."""


class Order(BaseModel):
    order: int
    amount: float


class Decision(BaseModel):
    approved: bool
    note: str | None = None


async def _ask(order: Order, via: Literal["signal", "activity"]) -> None:
    decision = await await_human(
        task=f"Approve order {order.order}?",
        payload=order,
        response_schema=Decision,
        timeout_seconds=timedelta(days=1),
        via=via,
    )
    line = f"{workflow.info().workflow_id} {decision.approved} {decision.note}"
    await workflow.execute_activity(record_answer, line, start_to_close_timeout=timedelta(seconds=60))


@workflow.defn
class AskBySignal:
    @workflow.run
    async def run(self, order: Order) -> None:
        await _ask(order, "signal")


@workflow.defn
class AskByActivity:
    @workflow.run
    async def run(self, order: Order) -> None:
        await _ask(order, "activity")


@activity.defn
def record_answer(line: str) -> None:
    """One write to the end of the file: lines of several threads do not mix."""
    with open(os.environ[ANSWERS_FILE], "ab", buffering=0) as answers:
        answers.write(f"{line}\n".encode())
