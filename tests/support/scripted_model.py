"""A chat model whose messages are given."""

from typing import Any

from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage


class ScriptedModel(FakeMessagesListChatModel):
    """A model that makes the given tool calls and then ends."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def calling(tool: str, *calls: dict[str, Any]) -> ScriptedModel:
    """Return a model that calls the tool with each of these arguments in one turn, as `call-0`, `call-1` and so on."""
    turn = [{"name": tool, "args": args, "id": f"call-{number}"} for number, args in enumerate(calls)]
    return ScriptedModel(responses=[AIMessage("", tool_calls=turn), AIMessage("done")])
