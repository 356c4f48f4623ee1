"""The graph: a node asks about an order, and the next one records the answer. Its checkpoints are in PostgreSQL."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from benchmarks._workflows_many import Decision, Order, record_answer
from benchmarks.temporal_many import workflow_id
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from awaithumans_adapters.langgraph import await_human
from awaithumans_core import HumanTasks

CHECKPOINTS = "FAULTS_CHECKPOINTS"
"""Variable with the database of the checkpoints."""


class State(TypedDict, total=False):
    order: int
    line: str


def ask(human_tasks: HumanTasks | None) -> Any:
    async def ask(state: State) -> State:
        order = state["order"]
        decision = await await_human(
            task=f"Approve order {order}?",
            payload=Order(order=order, amount=250.0),
            response_schema=Decision,
            timeout_seconds=24 * 3600,
            human_tasks=human_tasks,
        )
        return {"line": f"{workflow_id(order)} {decision.approved} {decision.note}"}

    return ask


async def act(state: State) -> State:
    await asyncio.to_thread(record_answer, state["line"])
    return {}


@asynccontextmanager
async def orders(database: str | None = None, human_tasks: HumanTasks | None = None) -> AsyncGenerator[Any]:
    """Return the graph, whose connections are replaced when they break."""
    pool: Any = AsyncConnectionPool(
        database or os.environ[CHECKPOINTS],
        min_size=1,
        max_size=4,
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
        check=AsyncConnectionPool.check_connection,
        timeout=10.0,
        open=False,
    )
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        builder: Any = StateGraph(State)
        builder.add_node("ask", ask(human_tasks))
        builder.add_node("act", act)
        builder.add_edge(START, "ask")
        builder.add_edge("ask", "act")
        builder.add_edge("act", END)
        yield builder.compile(checkpointer=saver)
