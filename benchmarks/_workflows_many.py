"""Workflows that ask a person once and then record the answer in a file once."""

import os
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel
from temporalio import activity, workflow

from awaithumans_adapters.temporal import await_human

ANSWERS_FILE = "BENCHMARK_ANSWERS"
"""Name of the environment variable with the path of the file in which answers are recorded."""


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
    """Append a line with a single write, so that lines of several threads are not mixed."""
    with open(os.environ[ANSWERS_FILE], "ab", buffering=0) as answers:
        answers.write(f"{line}\n".encode())
