"""Workflows that ask a person, workflows of the same shape that ask no question, and workflows that ask by hand.

They share a file because a sandbox loads the whole file. They also share a shape: one activity, then the same wait. The
activity of `NoOp...` does nothing, so the difference to `Ask...` is the cost of asking. The activity of `AskByHand...`
makes the two HTTP calls of a question, so the difference is the cost of the adapter.
"""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel
from temporalio import workflow

from awaithumans_adapters.temporal import await_human

TIMEOUT = timedelta(hours=1)
"""Longer than any run, so no question times out."""
ATTEMPT = timedelta(seconds=60)
Via = Literal["signal", "activity"]


class Order(BaseModel):
    order: int
    amount: float


class Decision(BaseModel):
    approved: bool
    note: str | None = None


async def _ask(order: Order, via: Via) -> bool:
    decision = await await_human(
        task=f"Approve order {order.order}?",
        payload=order,
        response_schema=Decision,
        timeout_seconds=TIMEOUT,
        via=via,
    )
    return decision.approved


@workflow.defn
class AskBySignal:
    @workflow.run
    async def run(self, order: Order) -> bool:
        return await _ask(order, "signal")


@workflow.defn
class AskByActivity:
    @workflow.run
    async def run(self, order: Order) -> bool:
        return await _ask(order, "activity")


class _ActivityThenSignal:
    """Base of workflows with the shape of `AskBySignal`: an activity, then a signal or a timeout."""

    def __init__(self) -> None:
        self._decision: Decision | None = None

    async def ask_and_wait(self, name: str, order: Order) -> bool:
        await workflow.execute_activity(name, order.order, start_to_close_timeout=ATTEMPT)
        await workflow.wait_condition(lambda: self._decision is not None, timeout=TIMEOUT)
        return bool(self._decision and self._decision.approved)

    @workflow.signal
    def answer(self, decision: Decision) -> None:
        self._decision = decision


@workflow.defn
class NoOpBySignal(_ActivityThenSignal):
    @workflow.run
    async def run(self, order: Order) -> bool:
        return await self.ask_and_wait("do_nothing", order)


@workflow.defn
class AskByHand(_ActivityThenSignal):
    @workflow.run
    async def run(self, order: Order) -> bool:
        return await self.ask_and_wait("ask_by_hand", order)


async def _activity_completed_elsewhere(name: str, order: Order) -> bool:
    """Wait for an activity that is completed from outside, as `AskByActivity` does."""
    return bool(await workflow.execute_activity(name, order.order, start_to_close_timeout=TIMEOUT))


@workflow.defn
class NoOpByActivity:
    @workflow.run
    async def run(self, order: Order) -> bool:
        return await _activity_completed_elsewhere("do_nothing_until_completed", order)


@workflow.defn
class AskByHandByActivity:
    @workflow.run
    async def run(self, order: Order) -> bool:
        return await _activity_completed_elsewhere("ask_by_hand_until_completed", order)
