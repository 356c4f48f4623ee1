"""A LangGraph graph runs inside a Temporal workflow, and one of its nodes asks a person.

    pip install temporalio-langgraph
    awaithumans-relay dev                                       # terminal 1
    python -m examples.temporal_langgraph_refund                # terminal 2, in the same folder

The node that asks runs in the workflow and calls Temporal's `await_human`. Nodes that do I/O run as activities.
Temporal keeps the graph, so it needs no checkpointer.
"""

import asyncio
import os
import uuid
from datetime import timedelta
from typing import Any, NotRequired, TypedDict

from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field
from temporalio import workflow
from temporalio.client import Client
from temporalio.langgraph import LangGraphPlugin, graph
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, await_human

TASK_QUEUE = "graph-refunds"


class Decision(BaseModel):
    approved: bool = Field(title="Approve this refund?")


class State(TypedDict):
    order: str
    amount: float
    approved: NotRequired[bool]
    result: NotRequired[str]


async def review(state: State) -> dict[str, bool]:
    decision = await await_human(
        task=f"Approve ${state['amount']:g} refund for {state['order']}?",
        payload={"order": state["order"], "amount": state["amount"]},
        response_schema=Decision,
        timeout_seconds=24 * 3600,
    )
    return {"approved": decision.approved}


async def act(state: State) -> dict[str, str]:
    print(f"acting on {state['order']}")
    return {"result": "paid" if state.get("approved") else "declined"}


def refunds() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    builder.add_node("review", review, metadata={"execute_in": "workflow"})
    builder.add_node("act", act, metadata={"execute_in": "activity", "start_to_close_timeout": timedelta(seconds=30)})
    builder.add_edge(START, "review")
    builder.add_edge("review", "act")
    builder.add_edge("act", END)
    return builder


@workflow.defn
class GraphRefundWorkflow:
    @workflow.run
    async def run(self, order: str, amount: float) -> str:
        done = await graph("refunds").compile().ainvoke({"order": order, "amount": amount})
        return str(done["result"])


async def main() -> None:
    address = os.environ.get("TEMPORAL_ADDRESS", "localhost:7233")
    plugins = [HumanTasksPlugin(), LangGraphPlugin(graphs={"refunds": refunds()})]
    client = await Client.connect(address, plugins=plugins)
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[GraphRefundWorkflow]):
        result = await client.execute_workflow(
            GraphRefundWorkflow.run,
            args=["A-1003", 250.0],
            id=f"graph-refund-{uuid.uuid4()}",
            task_queue=TASK_QUEUE,
        )
    print(result)


if __name__ == "__main__":
    from examples import temporal_langgraph_refund  # the plugin requires nodes of a named module, not of __main__

    asyncio.run(temporal_langgraph_refund.main())
