"""A person approves the tool call of an agent, and the tool runs."""

import asyncio
import uuid
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from awaithumans_adapters.langgraph import GraphEngine, HumanApproval
from awaithumans_core import Route, TaskClient

paid = list[str]()


class ScriptedModel(FakeMessagesListChatModel):
    """Calls the tool once, then ends."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def refund(order: str) -> str:
    """Pay back."""
    paid.append(order)
    return "paid"


async def main() -> None:
    call: Any = {"name": "refund", "id": "call-1", "args": {"order": "A-1"}}
    model = ScriptedModel(responses=[AIMessage("", tool_calls=[call]), AIMessage("done")])
    agent: Any = create_agent(model, [refund], middleware=[HumanApproval(["refund"])], checkpointer=InMemorySaver())
    thread_id = uuid.uuid4().hex
    config: Any = {"configurable": {"thread_id": thread_id}}
    await agent.ainvoke({"messages": [("user", "please")]}, config)
    assert not paid
    shown = (await agent.aget_state(config)).interrupts[0].value
    async with TaskClient() as client:
        outcome = await client.poll(shown["task_id"])
    route = Route("langgraph", {"thread_id": thread_id}, shown["idempotency_key"])
    await GraphEngine({"agent": agent}).deliver(route, outcome)
    assert paid == ["A-1"]


if __name__ == "__main__":
    asyncio.run(main())
