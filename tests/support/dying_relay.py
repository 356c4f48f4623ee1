"""A relay that is killed in the middle of a node, after the node has acted.

python -m tests.support.dying_relay CHECKPOINTS WAITS ACTS [die]
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_core import HumanTasks
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.store import Store
from tests.support.graph_bench import State
from tests.support.workflows import Decision

LEASE_SECONDS = 0.3


def asks_and_pays(acts: Path, *, human_tasks: HumanTasks | None = None, dies: bool = False) -> Any:
    """Return a graph that asks, and then acts by writing a line to a file."""

    async def ask(state: State) -> State:
        decision = await await_human(task="Pay?", response_schema=Decision, human_tasks=human_tasks)
        return {"answers": [("pay", decision.approved)]}

    def pay(state: State) -> State:
        with acts.open("a") as file:
            file.write("pay\n")
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("pay", pay)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "pay")
    builder.add_edge("pay", END)
    return builder


async def main(checkpoints: str, waits: str, acts: str, *die: str) -> None:
    store = Store(waits)
    await store.start()
    async with AsyncSqliteSaver.from_conn_string(checkpoints) as saver:
        graph = asks_and_pays(Path(acts), dies=bool(die)).compile(checkpointer=saver)
        engine = GraphEngine({"graph": graph})
        async with Dispatcher(store.leases, {engine.name: engine}, lease_seconds=LEASE_SECONDS).running():
            while (await store.queries.counts()).get("answered"):
                await asyncio.sleep(0.05)
    await store.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
