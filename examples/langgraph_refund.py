"""A LangGraph node asks a person, and a relay process resumes the thread with the answer.

    awaithumans-relay dev --graph refunds=examples.langgraph_refund:refunds        # terminal 1
    python -m examples.langgraph_refund                                            # terminal 2

Both run in the same folder and share the checkpoint file.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NotRequired, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from awaithumans_adapters.langgraph import await_human

CHECKPOINTS = os.environ.get("CHECKPOINTS", "checkpoints.db")


class Decision(BaseModel):
    approved: bool = Field(title="Approve this refund?")


class State(TypedDict):
    order: str
    amount: float
    reviewer: NotRequired[str]
    notify: NotRequired[list[str]]
    result: NotRequired[str]


async def review(state: State) -> dict[str, str]:
    decision = await await_human(
        task=f"Approve ${state['amount']:g} refund for {state['order']}?",
        payload={"order": state["order"], "amount": state["amount"]},
        response_schema=Decision,
        timeout_seconds=24 * 3600,
        assign_to=state.get("reviewer"),
        notify=state.get("notify"),
    )
    return {"result": "paid" if decision.approved else "declined"}


builder = StateGraph(State)
builder.add_node("review", review)
builder.add_edge(START, "review")
builder.add_edge("review", END)


@asynccontextmanager
async def refunds() -> AsyncGenerator[Any]:
    async with AsyncSqliteSaver.from_conn_string(CHECKPOINTS) as saver:
        yield builder.compile(checkpointer=saver, name="refunds")


async def main() -> None:
    thread: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
    async with refunds() as graph:
        await graph.ainvoke({"order": "A-1002", "amount": 250.0}, thread)  # returns at the question
        while (await graph.aget_state(thread)).tasks:
            await asyncio.sleep(1)
        print((await graph.aget_state(thread)).values["result"])


if __name__ == "__main__":
    asyncio.run(main())
