"""Scripted people for graphs: every kind of node, in virtual time, without a relay."""

import asyncio
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from awaithumans_adapters.langgraph import HumanInterrupts, await_human, await_human_sync
from awaithumans_adapters.langgraph.default_human_tasks import replacement
from awaithumans_adapters.langgraph.testing import HumansForLangGraph
from tests.support.workflows import Decision

DAY = timedelta(days=1)


def both(before: list[str], after: list[str]) -> list[str]:
    return before + after


class State(TypedDict, total=False):
    order: str
    said: Annotated[list[str], both]


def graph_of(*nodes: Any) -> Any:
    builder = StateGraph(State)
    for node in nodes:
        builder.add_node(node.__name__, node).add_edge(START, node.__name__).add_edge(node.__name__, END)
    return builder.compile(checkpointer=InMemorySaver())


def thread(name: str = "t") -> Any:
    return {"configurable": {"thread_id": name}}


async def first(state: State) -> Any:
    answer = await await_human(task="First?", response_schema=Decision, timeout_seconds=7 * DAY)
    return {"said": [f"first {answer.approved}"]}


async def second(state: State) -> Any:
    answer = await await_human(task="Second?", response_schema=Decision, timeout_seconds=7 * DAY)
    return {"said": [f"second {answer.approved}"]}


def sync(state: State) -> Any:
    return {"said": [str(await_human_sync(task="Sync?", response_schema=Decision).approved)]}


async def unmodified(state: State) -> Any:
    return {"said": [interrupt("Which colour?")]}


async def fails(state: State) -> Any:
    await await_human(task="Fails?", response_schema=Decision)
    raise ZeroDivisionError


async def test_parallel_questions_are_answered_in_the_order_of_their_times() -> None:
    """Each answer arrives at its time, and the time passes only while the thread is resumed."""
    graph = graph_of(first, second)
    async with HumansForLangGraph(graph) as humans:
        humans.answer("First", {"approved": True}).after(3 * DAY)
        humans.answer("Second", {"approved": False}).after(2 * DAY)
        await graph.ainvoke({}, thread())
        assert {task.asked["task"] for task in humans.tasks} == {"First?", "Second?"}
        assert humans.clock.now() == 0
        assert set((await humans.resume(thread()))["said"]) == {"first True", "second False"}
        assert humans.clock.now() == pytest.approx(3 * 86400, abs=1)
        assert [task.asked["task"] for task in sorted(humans.tasks, key=lambda task: task.completed_at or 0)] == [
            "Second?",
            "First?",
        ]


def test_sync_test_needs_no_event_loop() -> None:
    """`with`, `graph.invoke` and `resume_sync` are enough for sync nodes."""
    graph = graph_of(sync)
    with HumansForLangGraph(graph) as humans:
        humans.answer("Sync", {"approved": True})
        graph.invoke({}, thread())
        assert humans.resume_sync(thread())["said"] == ["True"]


async def test_unmodified_graph_is_answered() -> None:
    """The interrupts of `HumanInterrupts` go to these people, in the run of the application and after a resume."""
    graph = graph_of(unmodified).with_config(callbacks=[HumanInterrupts(timeout_seconds=7 * DAY)])
    async with HumansForLangGraph(graph) as humans:
        humans.on().answers({"answer": "blue"}).after(DAY)
        await graph.ainvoke({}, thread())
        assert (await humans.resume(thread()))["said"] == ["blue"]


async def test_superseded_question_is_cancelled() -> None:
    """New input replaces the question, whose task is cancelled as by the relay, and the new one is answered."""
    graph = graph_of(first)
    async with HumansForLangGraph(graph) as humans:
        await graph.ainvoke({"order": "A-1"}, thread())
        (before,) = humans.tasks
        await graph.ainvoke({"order": "A-2"}, thread())
        after = next(task for task in humans.tasks if task is not before)
        humans.complete(after.id, {"approved": True})
        assert (await humans.resume(thread()))["said"] == ["first True"]
        assert (before.status, after.status) == ("cancelled", "completed")


async def test_error_of_a_node_is_raised() -> None:
    """The test sees the node's own error, for which a relay would park the wait."""
    graph = graph_of(fails)
    async with HumansForLangGraph(graph) as humans:
        humans.answer("Fails", {"approved": True})
        await graph.ainvoke({}, thread())
        with pytest.raises(ZeroDivisionError):
            await humans.resume(thread())


async def test_threads_are_resumed_one_by_one() -> None:
    """Resuming one thread leaves the question of another one open."""
    graph = graph_of(first)
    async with HumansForLangGraph(graph) as humans:
        humans.answer("First", {"approved": True}).after(DAY)
        await asyncio.gather(graph.ainvoke({}, thread("a")), graph.ainvoke({}, thread("b")))
        assert (await humans.resume(thread("a")))["said"] == ["first True"]
        assert (await graph.aget_state(thread("b"))).interrupts
        assert (await humans.resume(thread("b")))["said"] == ["first True"]


async def test_thread_that_was_not_started_is_an_error() -> None:
    """A test that resumes another thread than it started fails, instead of finding no values."""
    graph = graph_of(first)
    async with HumansForLangGraph(graph) as humans:
        await graph.ainvoke({}, thread("a"))
        with pytest.raises(ValueError, match=r"thread 'b' was not started: first call graph\.ainvoke"):
            await humans.resume(thread("b"))


async def test_second_helper_is_refused() -> None:
    """Nodes ask one set of people, so a second one at the same time is an error, and nothing is left afterwards."""
    graph = graph_of(first)
    async with HumansForLangGraph(graph):
        with pytest.raises(RuntimeError, match="another HumansForLangGraph is open"):
            HumansForLangGraph(graph).__enter__()
    assert replacement() is None
