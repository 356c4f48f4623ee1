"""A LangGraph graph and the relay inside one FastAPI app, which starts the threads and resumes them.

    awaithumans dev                                             # terminal 1: the server, whose key is found beside it

    export AWAITHUMANS_RELAY_URL=http://localhost:8000/awaithumans
    export AWAITHUMANS_RELAY_SECRET=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
    uvicorn graphs_in_your_app:app --no-access-log              # terminal 2, in the same folder
    curl -X POST 'localhost:8000/refunds/A-1005?amount=250'     # asks a person; returns at the question
    curl localhost:8000/refunds/A-1005                          # once the person has answered: paid or declined

The secret must stay the same: keep it, for instance in the `.env` that `awaithumans-relay init` writes, and start with
`uvicorn --env-file .env`. The app may be restarted while people are asked. While the awaithumans server is down, a
request waits until the question is asked; `--timeout-graceful-shutdown 5` bounds how long a restart waits for it.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NotRequired, TypedDict

from fastapi import FastAPI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_relay import create_router


class Decision(BaseModel):
    approved: bool = Field(title="Approve this refund?")


class State(TypedDict):
    order: str
    amount: float
    result: NotRequired[str]


async def review(state: State) -> dict[str, str]:
    decision = await await_human(
        task=f"Approve ${state['amount']:g} refund for {state['order']}?",
        payload={"order": state["order"], "amount": state["amount"]},
        response_schema=Decision,
    )
    result = "paid" if decision.approved else "declined"
    print(f"{state['order']} is {result}", flush=True)
    return {"result": result}


@asynccontextmanager
async def refunds() -> AsyncGenerator[Any]:
    """Open the graph with its checkpointer. The relay enters this when the app starts."""
    builder = StateGraph(State).add_node("review", review).add_edge(START, "review").add_edge("review", END)
    async with AsyncSqliteSaver.from_conn_string(os.environ.get("CHECKPOINTS", "checkpoints.db")) as saver:
        yield builder.compile(checkpointer=saver)


engine = GraphEngine({"refunds": refunds})

# The awaithumans server counts a redirect as a delivered callback.
app = FastAPI(title="Orders", redirect_slashes=False)
app.include_router(create_router([engine]), prefix="/awaithumans")


@app.post("/refunds/{order}")
async def start(order: str, amount: float) -> str:
    await engine.graph("refunds").ainvoke({"order": order, "amount": amount}, thread(order))
    return f"asked about {order}"


@app.get("/refunds/{order}")
async def status(order: str) -> str:
    state = await engine.graph("refunds").aget_state(thread(order))
    return str(state.values.get("result", "open"))


def thread(order: str) -> Any:
    return {"configurable": {"thread_id": f"refund-{order}"}}
