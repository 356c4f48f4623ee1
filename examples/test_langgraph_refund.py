"""Tests of `langgraph_refund` in virtual time: people answer after days. They need no servers and no settings.

pip install 'awaithumans-workflows[langgraph,testing]' pytest-asyncio
pytest -o asyncio_mode=auto examples/test_langgraph_refund.py
"""

from datetime import timedelta
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from awaithumans_adapters.langgraph.testing import HumansForLangGraph
from awaithumans_core import TaskCancelledError, TaskTimeoutError
from examples.langgraph_refund import builder


async def refund(humans: HumansForLangGraph, graph: Any, order: str) -> str:
    thread: Any = {"configurable": {"thread_id": order}}
    await graph.ainvoke({"order": order, "amount": 250}, thread)  # returns at the question
    result: str = (await humans.resume(thread))["result"]
    return result


async def test_refund() -> None:
    graph = builder.compile(checkpointer=InMemorySaver())
    async with HumansForLangGraph(graph) as humans:
        humans.answer("A-1", {"approved": True}).after(timedelta(hours=3)).by("anna@example.com")
        assert await refund(humans, graph, "A-1") == "paid"
        with pytest.raises(TaskTimeoutError):  # no answer for a day
            await refund(humans, graph, "A-2")
        humans.on("A-3").cancels().after(timedelta(minutes=10))
        with pytest.raises(TaskCancelledError):
            await refund(humans, graph, "A-3")
