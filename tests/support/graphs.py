"""The graph of the contract tests: it asks and then acts, in the test's process or in a LangGraph server."""

from collections.abc import Callable
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import await_human, await_human_sync
from awaithumans_core import AwaitHumansError, HumanTasks, Outcome
from tests.support.workflows import Decision


class State(TypedDict, total=False):
    name: str
    options: dict[str, Any]
    told: dict[str, Any]


HumanTasksOf = Callable[[], HumanTasks | None]


def result_of(decision: Decision, outcome: Outcome) -> dict[str, Any]:
    return {"approved": decision.approved, "by": outcome.completed_by_email}


def asks(human_tasks: HumanTasksOf) -> Any:
    async def ask(state: State) -> State:
        try:
            answered = await await_human(
                response_schema=Decision, return_outcome=True, human_tasks=human_tasks(), **state["options"]
            )
        except AwaitHumansError as error:
            return {"told": {"error": type(error).__name__, "message": str(error)}}
        return {"told": result_of(*answered)}

    return ask


def asks_sync(human_tasks: HumanTasksOf) -> Any:
    def ask(state: State) -> State:
        try:
            answered = await_human_sync(
                response_schema=Decision, return_outcome=True, human_tasks=human_tasks(), **state["options"]
            )
        except AwaitHumansError as error:
            return {"told": {"error": type(error).__name__, "message": str(error)}}
        return {"told": result_of(*answered)}

    return ask


def ask_then_act(ask: Any, act: Any, *, state: Any = State, asker: str = "ask") -> Any:
    builder = StateGraph(state)
    builder.add_node(asker, ask)
    builder.add_node("act", act)
    builder.add_edge(START, asker)
    builder.add_edge(asker, "act")
    builder.add_edge("act", END)
    return builder
