"""Workflows with many concurrent questions, and with the same number of plain activities and timers."""

import asyncio
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel
from temporalio import workflow

from awaithumans_adapters.temporal import await_human

TIMEOUT = timedelta(hours=1)
ATTEMPT = timedelta(seconds=60)


class Order(BaseModel):
    order: int
    amount: float


class Decision(BaseModel):
    approved: bool
    note: str | None = None


async def _ask(order: int, via: Literal["signal", "activity"]) -> bool:
    decision = await await_human(
        task=f"Approve order {order}?",
        payload=Order(order=order, amount=250.0),
        response_schema=Decision,
        timeout_seconds=TIMEOUT,
        via=via,
    )
    return decision.approved


@workflow.defn
class GatherBySignal:
    """Asks the given number of questions concurrently, in signal mode."""

    @workflow.run
    async def run(self, count: int) -> int:
        return sum(await asyncio.gather(*(_ask(order, "signal") for order in range(count))))


@workflow.defn
class GatherByActivity:
    """Asks the given number of questions concurrently, in activity mode."""

    @workflow.run
    async def run(self, count: int) -> int:
        return sum(await asyncio.gather(*(_ask(order, "activity") for order in range(count))))


class _Plain:
    """Base of workflows that run plain activities, each followed by a signal or a timeout."""

    def __init__(self) -> None:
        self._answers: dict[int, bool] = {}

    @workflow.signal
    def answer(self, order: int, approved: bool) -> None:  # noqa: FBT001 - a signal's arguments are positional
        self._answers[order] = approved

    async def gathered(self, activity: str, count: int) -> int:
        return sum(await asyncio.gather(*(self._one(activity, order) for order in range(count))))

    async def _one(self, activity: str, order: int) -> bool:
        argument: Any = order
        await workflow.execute_activity(activity, argument, start_to_close_timeout=ATTEMPT)
        await workflow.wait_condition(lambda: order in self._answers, timeout=TIMEOUT)
        return self._answers[order]


@workflow.defn
class GatherPlain(_Plain):
    """Runs activities that do nothing."""

    @workflow.run
    async def run(self, count: int) -> int:
        return await self.gathered("do_nothing", count)


@workflow.defn
class GatherByHand(_Plain):
    """Runs activities that make the two HTTP calls of a question."""

    @workflow.run
    async def run(self, count: int) -> int:
        return await self.gathered("ask_one_by_hand", count)
