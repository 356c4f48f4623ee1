"""A LangChain agent for a LangGraph server: its model makes the refunds that the user's message lists."""

import json
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from awaithumans_adapters.langgraph import HumanApproval


class ListModel(BaseChatModel):
    """A model that calls `refund` for each order of the first message and then ends, without state between runs."""

    @property
    def _llm_type(self) -> str:
        return "list"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[Any], *_: Any, **__: Any) -> ChatResult:
        if isinstance(messages[-1], ToolMessage):
            return _result(AIMessage("done"))
        orders: list[dict[str, Any]] = json.loads(messages[0].text)
        calls = [{"name": "refund", "id": f"call-{n}", "args": order} for n, order in enumerate(orders)]
        return _result(AIMessage("", tool_calls=calls))


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def agent(acts: Path) -> Any:
    """Return the agent; `acts` gets a line for each refund and one for each evaluation of the condition."""

    def refund(order: str, amount: float) -> str:
        """Pay back."""
        _note(acts, f"paid {order} {amount:g}")
        return "paid"

    def large(request: Any) -> bool:
        args = request.tool_call["args"]
        _note(acts, f"asked whether {args['order']} is large")
        return bool(args["amount"] > 100)

    approval = HumanApproval(
        ["refund"],
        question=lambda call: f"Refund {call['args']['order']}?",
        when=large,
        allowed_decisions=["approve", "reject", "respond"],
    )
    return create_agent(ListModel(), [refund], middleware=[approval])


def _note(acts: Path, line: str) -> None:
    with acts.open("a") as file:
        file.write(f"{line}\n")
