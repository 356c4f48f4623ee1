"""The graphs of the tests' LangGraph server, which may also run in a relay's process.

Every action appends a line to a file, so that a repetition is seen; files beside it give instructions to nodes.
"""

import asyncio
import operator
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import get_runtime

from awaithumans_adapters.langgraph import await_human
from awaithumans_core import HumanTasks, quorum
from tests.support import graphs
from tests.support.graphs import ask_then_act, asks, asks_sync
from tests.support.workflows import Decision


def _acts() -> Path:
    return Path(os.environ.get("ACTS", "acts"))


def record(line: str) -> None:
    with _acts().open("a") as file:
        file.write(f"{line}\n")


def told_to(do: str, name: str) -> bool:
    return _acts().with_name(f"{name}-{do}").exists()


def _act_of_contract(state: graphs.State) -> graphs.State:
    record(state["name"])
    return {}


ask = ask_then_act(asks(lambda: None), _act_of_contract).compile()
ask_sync = ask_then_act(asks_sync(lambda: None), _act_of_contract).compile()


class Tenant(TypedDict, total=False):
    tenant: str


class State(TypedDict, total=False):
    name: str
    questions: list[str]
    answers: Annotated[list[tuple[str, bool]], operator.add]
    tenant: str


async def _asks(state: State, question: str, human_tasks: HumanTasks | None = None) -> State:
    name = state["name"]
    if told_to("stumble", name):
        raise ConnectionError("the shop is unreachable")
    if told_to("reword", name):
        question = f"{question} And ten times as much?"
    decision = await await_human(task=question, response_schema=Decision, human_tasks=human_tasks)
    await asyncio.to_thread(record, f"{name} goes on")
    while told_to("hold", name):
        await asyncio.sleep(0.05)
    if told_to("drop", name):
        await asyncio.to_thread(_acts().with_name(f"{name}-drop").unlink)
        from langgraph_runtime.retry import RetryableException  # type: ignore[import-untyped]  # the server's

        raise RetryableException  # how a server treats a lost worker: the run is retried
    if told_to("break", name):
        raise ZeroDivisionError
    return {"answers": [(question, decision.approved)]}


def _first(human_tasks: HumanTasks | None = None) -> Any:
    """Return a node that asks with the settings of its process, unless settings are given."""

    async def first(state: State) -> State:
        return await _asks(state, state["questions"][0], human_tasks)

    return first


async def _second(state: State) -> State:
    return await _asks(state, state["questions"][1]) if len(state["questions"]) > 1 else {}


async def _slow(state: State) -> State:
    await asyncio.to_thread(record, f"{state['name']} slow")
    while told_to("slow", state["name"]):
        await asyncio.sleep(0.05)
    return {}


async def _act(state: State) -> State:
    await asyncio.to_thread(record, f"{state['name']} acts")
    configurable = get_config().get("configurable", {})
    user = configurable.get("langgraph_auth_user_id") or "nobody"
    return {"tenant": (get_runtime(Tenant).context or {}).get("tenant") or configurable.get("tenant") or user}


def _one(human_tasks: HumanTasks | None = None) -> Any:
    builder = StateGraph(State, context_schema=Tenant)
    builder.add_node("first", _first(human_tasks))
    builder.add_node("slow", _slow)
    builder.add_node("act", _act)
    for node in ("first", "slow"):
        builder.add_edge(START, node)
        builder.add_edge(node, "act")
    builder.add_edge("act", END)
    return builder


async def _both(state: State) -> State:
    first, second = state["questions"]
    done = await asyncio.gather(_asks(state, first), _asks(state, second))
    return {"answers": [answer for each in done for answer in each["answers"]]}


def _gathered() -> Any:
    builder = StateGraph(State)
    builder.add_sequence([("both", _both), ("act", _act)])
    builder.add_edge(START, "both")
    return builder


async def _deciding(state: State) -> State:
    async def ask(*, assign_to: str, **options: Any) -> Any:
        person = assign_to.partition("@")[0]
        return await await_human(
            task=f"{state['name']} {person}", response_schema=Decision, assign_to=assign_to, **options
        )

    people = [f"{person}@example.com" for person in state["questions"][1:]]
    # The tests answer as one person, whose answers count for all assignees.
    verdict = await quorum(2, people, ask, yes=lambda answer: answer.approved, count_unnamed=True)
    return {"answers": [("decided", verdict.reached)]}


def _decides() -> Any:
    builder = StateGraph(State)
    builder.add_sequence([("deciding", _deciding), ("act", _act)])
    builder.add_edge(START, "deciding")
    return builder


async def _swallowing(state: State) -> State:
    try:
        return await _asks(state, state["questions"][0])
    except Exception:
        return {"answers": [(state["questions"][0], True)]}


def _swallows() -> Any:
    inner = StateGraph(State)
    inner.add_sequence([("swallowing", _swallowing), ("second", _second)])
    inner.add_edge(START, "swallowing")
    builder = StateGraph(State)
    builder.add_node("sub", inner.compile())
    builder.add_node("act", _act)
    builder.add_edge(START, "sub")
    builder.add_edge("sub", "act")
    return builder


async def _fails(state: State) -> State:
    raise ValueError(state["name"])


def _handles() -> Any:
    return StateGraph(State).add_node("fails", _fails, error_handler=_first()).add_edge(START, "fails")


def _two() -> Any:
    inner = StateGraph(State)
    inner.add_node("second", _second)
    inner.add_edge(START, "second")
    builder = StateGraph(State)
    builder.add_node("first", _first())
    builder.add_node("sub", inner.compile())
    builder.add_node("act", _act)
    for node in ("first", "sub"):
        builder.add_edge(START, node)
        builder.add_edge(node, "act")
    builder.add_edge("act", END)
    return builder


one = _one().compile()
"""A graph that asks one question beside a slow branch and then acts."""
gathered = _gathered().compile()
"""A graph that asks two questions at once in one node and then acts."""
decides = _decides().compile()
"""A graph that asks a quorum of two in one node and then acts."""
swallows = _swallows().compile()
"""A graph that swallows the interrupt of a subgraph's first question, asks another one there and then acts."""
handles = _handles().compile()
"""A graph that fails and asks in an error handler."""
two = _two().compile()
"""A graph that asks one question and another in a parallel subgraph, and then acts."""


def agent() -> Any:
    """Return an agent whose refunds a person approves; only the server calls this and loads LangChain."""
    from tests.support.served_agent import agent as made

    return made(_acts())


@asynccontextmanager
async def one_on_disk(human_tasks: HumanTasks | None = None) -> AsyncGenerator[Any]:
    """Return the graph `one`, stored on disk and outside of a server."""
    async with AsyncSqliteSaver.from_conn_string(os.environ["CHECKPOINTS"]) as saver:
        yield _one(human_tasks).compile(checkpointer=saver)
