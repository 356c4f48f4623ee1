"""`HumanApproval` in an agent that a LangGraph server runs."""

import json
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, started

from awaithumans_adapters.langgraph import LangGraphServerEngine
from awaithumans_core import Outcome, Route
from tests.support.langgraph_server import LangGraphServer
from tests.support.people import People
from tests.support.relay import RunningRelay

pytestmark = pytest.mark.edges


@pytest.fixture
async def langgraph_server(humans: HumansServer, tmp_path: Path) -> AsyncGenerator[LangGraphServer]:
    made = LangGraphServer(tmp_path / "server", humans, "agent")
    async with started(made):
        yield made


async def test_condition_and_decisions_apply_on_a_server(
    served_relay: RunningRelay, langgraph_server: LangGraphServer, people: People
) -> None:
    """A small refund runs at once; of two large ones, one is approved and one is answered instead of the tool."""
    small, approved, by_hand = (f"{word}-{uuid.uuid4().hex[:8]}" for word in ("small", "approved", "by-hand"))
    orders = [{"order": small, "amount": 5}, {"order": approved, "amount": 250}, {"order": by_hand, "amount": 300}]
    client, engine = langgraph_server.client(), LangGraphServerEngine(langgraph_server.url)
    thread_id = (await client.threads.create())["thread_id"]
    messages: Any = {"messages": [{"role": "user", "content": json.dumps(orders)}]}
    run = await client.runs.create(thread_id, "agent", input=messages)
    await client.runs.join(thread_id, run["run_id"])

    async def give(order: str, response: dict[str, Any]) -> None:
        (task,) = await people.find(f"Refund {order}?")
        key = task["idempotency_key"]
        target = {"thread_id": thread_id, "assistant_id": run["assistant_id"]}
        outcome = Outcome(task_id=task["id"], status="completed", response=response, idempotency_key=key)
        for _ in range(2):
            await engine.deliver(Route("langgraph-server", target, key, caller={"run_id": run["run_id"]}), outcome)

    def acts() -> list[str]:
        return langgraph_server.acts.read_text().splitlines()

    assert f"paid {small} 5" in acts()
    assert await people.find(f"Refund {small}?", count=0) == []
    await give(by_hand, {"decision": "respond", "message": "paid in cash"})
    await give(approved, {"decision": "approve"})
    assert sorted(acts()) == sorted(
        [*(f"asked whether {order['order']} is large" for order in orders), f"paid {small} 5", f"paid {approved} 250"]
    )
    values: Any = (await client.threads.get_state(thread_id))["values"]
    told = {each["tool_call_id"]: each["content"] for each in values["messages"] if each["type"] == "tool"}
    assert told == {"call-0": "paid", "call-1": "paid", "call-2": "paid in cash"}
    await client.aclose()
    await engine.aclose()
