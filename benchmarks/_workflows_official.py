"""A workflow that asks with the official adapter (awaithumans 0.1.11), as in the adapter's example.

Server, token and callback address are arguments of the workflow. The adapter is passed through the sandbox, and the
data converter is Temporal's default.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from awaithumans.adapters.temporal import await_human  # type: ignore[import-untyped]  # it ships no types


class Order(BaseModel):
    order: int
    amount: float


class Decision(BaseModel):
    approved: bool
    note: str | None = None


@dataclass
class Question:
    order: int
    amount: float
    server_url: str
    api_key: str
    callback_base: str


@workflow.defn
class AskOfficially:
    @workflow.run
    async def run(self, question: Question) -> bool:
        decision: Any = await await_human(  # its types require question and answer to have the same class
            task=f"Approve order {question.order}?",
            payload_schema=Order,
            payload=Order(order=question.order, amount=question.amount),
            response_schema=Decision,
            timeout_seconds=3600,
            callback_url=f"{question.callback_base}/awaithumans/callback?wf={workflow.info().workflow_id}",
            server_url=question.server_url,
            api_key=question.api_key,
        )
        return bool(decision.approved)
