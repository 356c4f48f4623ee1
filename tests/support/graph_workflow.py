"""Graphs inside Temporal, as `temporalio.langgraph` runs them, in a module of their own like every workflow."""

from datetime import timedelta
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.langgraph import graph

from awaithumans_adapters.langgraph import await_human as await_human_in_node
from awaithumans_adapters.temporal import await_human
from awaithumans_core import AwaitHumansError
from tests.support.workflows import Decision

ACTS: list[str] = []


class State(TypedDict, total=False):
    question: str
    left: bool
    right: bool
    told: str


async def left(state: State) -> State:
    return {"left": (await await_human(task=f"{state['question']} left", response_schema=Decision)).approved}


async def right(state: State) -> State:
    return {"right": (await await_human(task=f"{state['question']} right", response_schema=Decision)).approved}


async def act(state: State) -> State:
    ACTS.append(state["question"])
    return {}


async def wrong(state: State) -> State:
    return {"left": (await await_human_in_node(task=state["question"], response_schema=Decision)).approved}


def in_workflow() -> dict[str, Any]:
    return {"execute_in": "workflow"}


def in_activity() -> dict[str, Any]:
    # Few attempts, in case an error is retried that must not be.
    few = RetryPolicy(maximum_attempts=3, initial_interval=timedelta(milliseconds=10))
    return {"execute_in": "activity", "start_to_close_timeout": timedelta(seconds=10), "retry_policy": few}


def two_people() -> Any:
    builder = StateGraph(State)
    builder.add_node("left", left, metadata=in_workflow())
    builder.add_node("right", right, metadata=in_workflow())
    builder.add_node("act", act, metadata=in_activity())
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge(["left", "right"], "act")
    return builder


def wrong_way(metadata: dict[str, Any]) -> Any:
    builder = StateGraph(State)
    builder.add_node("wrong", wrong, metadata=metadata)
    builder.add_edge(START, "wrong")
    return builder


@workflow.defn
class RunGraph:
    @workflow.run
    async def run(self, name: str, question: str) -> Any:
        try:
            saver = InMemorySaver() if name.startswith("wrong") else None
            compiled = graph(name).compile(checkpointer=saver)
            return await compiled.ainvoke({"question": question}, {"configurable": {"thread_id": question}})
        except AwaitHumansError as error:
            return {"told": f"{type(error).__name__}: {error}"}
