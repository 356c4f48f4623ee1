"""Workflows of both modes in a file without others, because a replay loads the whole file."""

from datetime import timedelta

from pydantic import BaseModel
from temporalio import workflow

from awaithumans_adapters.temporal import await_human

TIMEOUT = timedelta(hours=1)


class Order(BaseModel):
    order: int
    amount: float


class Decision(BaseModel):
    approved: bool
    note: str | None = None


@workflow.defn
class AskBySignal:
    @workflow.run
    async def run(self, order: Order) -> bool:
        question = f"Approve order {order.order}?"
        decision = await await_human(
            task=question, payload=order, response_schema=Decision, timeout_seconds=TIMEOUT, via="signal"
        )
        return decision.approved


@workflow.defn
class AskByActivity:
    @workflow.run
    async def run(self, order: Order) -> bool:
        question = f"Approve order {order.order}?"
        decision = await await_human(
            task=question, payload=order, response_schema=Decision, timeout_seconds=TIMEOUT, via="activity"
        )
        return decision.approved
