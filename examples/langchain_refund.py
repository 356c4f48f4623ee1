"""An agent may look up orders by itself, but a person approves, edits or rejects each refund.

    awaithumans-relay dev --graph refunds=examples.langchain_refund:refunds        # terminal 1
    python -m examples.langchain_refund                                            # terminal 2

Both run in the same folder and share the checkpoint file.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from awaithumans_adapters.langgraph import HumanApproval

CHECKPOINTS = os.environ.get("CHECKPOINTS", "checkpoints.db")
ORDER = "A-1004"


def look_up(order: str) -> str:
    """Look up what was paid for an order."""
    return f"$250 for {order}"


def refund(order: str, amount: float) -> str:
    """Pay money back."""
    return f"${amount:g} paid back for {order}"


class Clerk(BaseChatModel):
    """Replaces a real model: it looks up the order, asks for a refund, and reports the result."""

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        done = [message for message in messages if isinstance(message, ToolMessage)]
        calls: list[Any] = [
            {"name": "look_up", "id": "call-1", "args": {"order": ORDER}},
            {"name": "refund", "id": "call-2", "args": {"order": ORDER, "amount": 250.0}},
        ]
        message = (
            AIMessage(done[-1].content) if len(done) == len(calls) else AIMessage("", tool_calls=[calls[len(done)]])
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


@asynccontextmanager
async def refunds() -> AsyncGenerator[Any]:
    async with AsyncSqliteSaver.from_conn_string(CHECKPOINTS) as saver:
        yield create_agent(
            Clerk(),
            tools=[look_up, refund],
            middleware=[HumanApproval(["refund"], timeout_seconds=24 * 3600)],
            checkpointer=saver,
            name="refunds",
        )


async def main() -> None:
    thread: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
    async with refunds() as agent:
        await agent.ainvoke({"messages": [("user", f"Refund {ORDER}, please")]}, thread)  # returns at the question
        while (await agent.aget_state(thread)).tasks:
            await asyncio.sleep(1)
        print((await agent.aget_state(thread)).values["messages"][-1].content)


if __name__ == "__main__":
    asyncio.run(main())
