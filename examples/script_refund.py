"""A plain script asks a person and continues with the typed answer.

awaithumans-relay dev                 # terminal 1; the script finds its address and token
python -m examples.script_refund      # terminal 2, in the same folder
"""

import os

from pydantic import BaseModel, Field

from awaithumans_core import await_human_sync


class Refund(BaseModel):
    order: str
    amount: float


class Decision(BaseModel):
    approved: bool = Field(title="Approve this refund?")


def refund(order: str, amount: float) -> str:
    decision = await_human_sync(
        task=f"Approve ${amount:g} refund for {order}?",
        payload=Refund(order=order, amount=amount),
        response_schema=Decision,
        timeout_seconds=900,
        assign_to=os.environ.get("REVIEWER"),
        idempotency_key=f"refund:{order}",  # a restarted script finds this question or its answer again
    )
    return "paid" if decision.approved else "declined"


if __name__ == "__main__":
    print(refund("A-1003", 250))
