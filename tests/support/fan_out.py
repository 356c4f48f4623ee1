"""A graph for two relays: it asks one question per item in parallel and records each result."""

import asyncio
import operator
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from awaithumans_adapters.langgraph import await_human
from awaithumans_core import HumanTasks
from tests.support.workflows import Decision


class State(TypedDict, total=False):
    name: str
    items: list[int]
    answers: Annotated[list[tuple[int, bool]], operator.add]


class Item(TypedDict):
    name: str
    item: int


def _record(line: str) -> None:
    with Path(os.environ["ACTS"]).open("a") as file:
        file.write(f"{line}\n")


async def _act(state: State) -> State:
    await asyncio.to_thread(_record, "act")
    return {}


def _each(state: State) -> list[Send]:
    return [Send("ask", Item(name=state["name"], item=item)) for item in state["items"]]


@asynccontextmanager
async def fan_out(human_tasks: HumanTasks | None = None) -> AsyncGenerator[Any]:
    """Return the graph on the database in CHECKPOINTS, which all processes share."""

    async def ask(one: Item) -> State:
        item, task = one["item"], f"{one['name']}: item {one['item']}?"
        decision = await await_human(
            task=task, payload={"item": item}, response_schema=Decision, human_tasks=human_tasks
        )
        await asyncio.to_thread(_record, f"{item} {decision.approved}")
        return {"answers": [(item, decision.approved)]}

    async with AsyncPostgresSaver.from_conn_string(os.environ["CHECKPOINTS"]) as saver:
        builder: Any = StateGraph(State)  # its types do not follow what Send brings
        builder.add_node("ask", ask)
        builder.add_node("act", _act)
        builder.add_conditional_edges(START, _each, ["ask"])
        builder.add_edge("ask", "act")
        builder.add_edge("act", END)
        yield builder.compile(checkpointer=saver)
