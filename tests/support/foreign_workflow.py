"""A workflow that asks people through the wire contract alone, and so imports nothing of the package."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow

SHORT, HOUR = timedelta(seconds=60), timedelta(hours=1)


@workflow.defn
class AskByName:
    """Ask through the activities of a Python task queue, in either mode, and return the unmodified outcome."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, Any]] = {}

    @workflow.signal(name="awaithumans.answer")
    def answered(self, outcome: dict[str, Any]) -> None:
        self.outcomes.setdefault(outcome["idempotency_key"], outcome)

    @workflow.run
    async def run(self, body: dict[str, Any], via: str, queue: str) -> dict[str, Any]:
        if via == "activity":
            return await self._call("awaithumans.await_human", body, queue, HOUR)
        try:
            return await self._by_signal(body, queue)
        except asyncio.CancelledError:  # possibly before the task id was known
            await asyncio.shield(self._call("awaithumans.withdraw", body["idempotency_key"], queue, SHORT))
            raise

    async def _by_signal(self, body: dict[str, Any], queue: str) -> dict[str, Any]:
        opened = await self._call("awaithumans.open_wait", body, queue, SHORT)
        if "status" in opened:  # the task has ended already
            return opened
        key, seconds = body["idempotency_key"], body["timeout_seconds"]
        try:
            await workflow.wait_condition(lambda: key in self.outcomes, timeout=timedelta(seconds=seconds + 15))
        except TimeoutError:
            asked = {"task_id": opened["task_id"], "timeout_seconds": seconds, "idempotency_key": key}
            return await self._call("awaithumans.last_look", asked, queue, SHORT)
        return self.outcomes[key]

    async def _call(self, name: str, argument: Any, queue: str, timeout: timedelta) -> dict[str, Any]:
        result: dict[str, Any] = await workflow.execute_activity(
            name, argument, task_queue=queue, start_to_close_timeout=timeout, result_type=dict[str, Any]
        )
        return result
