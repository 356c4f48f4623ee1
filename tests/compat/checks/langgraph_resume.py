"""A graph asks in a node, and `GraphEngine` resumes its thread in this process."""

import asyncio
import uuid
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_core import Route, TaskClient


class Decision(BaseModel):
    approved: bool


class State(TypedDict, total=False):
    order: str
    approved: bool


async def review(state: State) -> State:
    decision = await await_human(task="Pay back?", response_schema=Decision, timeout_seconds=900)
    return {"approved": decision.approved}


async def main() -> None:
    builder = StateGraph(State)
    builder.add_node("review", review)
    builder.add_edge(START, "review")
    graph = builder.compile(checkpointer=InMemorySaver())
    thread_id = uuid.uuid4().hex
    config: Any = {"configurable": {"thread_id": thread_id}}
    await graph.ainvoke({"order": "A-1"}, config)
    shown = (await graph.aget_state(config)).interrupts[0].value
    async with TaskClient() as client:
        outcome = await client.poll(shown["task_id"])
    route = Route("langgraph", {"thread_id": thread_id}, shown["idempotency_key"])
    await GraphEngine({"refunds": graph}).deliver(route, outcome)
    assert (await graph.aget_state(config)).values == {"order": "A-1", "approved": True}


if __name__ == "__main__":
    asyncio.run(main())
