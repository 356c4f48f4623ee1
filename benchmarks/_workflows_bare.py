"""The minimum that a wait can cost: a signal or a timeout, in a file that loads only the SDK."""

from datetime import timedelta
from typing import Any

from temporalio import workflow


@workflow.defn
class WaitForSignal:
    def __init__(self) -> None:
        self._answer: dict[str, Any] | None = None

    @workflow.run
    async def run(self, order: int) -> bool:
        await workflow.wait_condition(lambda: self._answer is not None, timeout=timedelta(hours=1))
        return bool(self._answer and self._answer["approved"])

    @workflow.signal
    def answer(self, decision: dict[str, Any]) -> None:
        self._answer = decision
