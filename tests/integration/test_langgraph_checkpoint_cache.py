"""Resumed runs reuse the checkpoints that the engine has read, with real graphs."""

import asyncio
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from awaithumans_adapters.langgraph.graph_engine.deliveries import MAX_STARTING
from awaithumans_adapters.langgraph.graph_engine.stored_thread.checkpoint_cache import CheckpointCache
from awaithumans_core import Outcome, Route
from tests.support.clocks import ManualClock
from tests.support.counting_savers import CountingSaver, YieldingSaver
from tests.support.graph_bench import Bench
from tests.support.people import People
from tests.support.relay import RunningRelay


async def test_thread_that_asks_is_read_once(registrar: RunningRelay, people: People) -> None:
    """The engine's read is the only one until the run ends."""
    saver = CountingSaver()
    bench = Bench(saver, registrar.human_tasks(), people)

    async def node(_: Any) -> Any:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    look, saver.reads = CheckpointCache(saver, ManualClock()), 0
    (shown,) = (await bench.compiled.aget_state(look.lent(bench.config), subgraphs=True)).interrupts
    look.end()
    key = (await bench.task("a"))["idempotency_key"]
    outcome = {"task_id": "t", "idempotency_key": key, "status": "completed", "response": {"approved": True}}
    await bench.compiled.ainvoke(Command(resume={shown.id: outcome}), look.lent(bench.config))
    assert saver.reads == 1
    assert bench.acts == ["act"]
    assert await bench.answers() == {("a", True)}


@pytest.mark.edges
async def test_first_of_many_threads_resumes_before_the_last_is_read(registrar: RunningRelay, people: People) -> None:
    """A cached checkpoint is used while fresh, however many threads are resumed at once."""
    saver = YieldingSaver()
    bench = Bench(saver, registrar.human_tasks(), people)

    async def node(_: Any) -> Any:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    answers: list[tuple[Route, Outcome]] = []
    for number in range(10 * MAX_STARTING):
        thread_id = f"{bench.thread_id}:{number}"
        shown = await bench.compiled.ainvoke({"answers": []}, {"configurable": {"thread_id": thread_id}})
        key = shown["__interrupt__"][0].value["idempotency_key"]
        yes = Outcome(task_id="t", idempotency_key=key, status="completed", response={"approved": True})
        answers.append((Route("langgraph", {"thread_id": thread_id}, key), yes))
    saver.happened.clear()
    await asyncio.gather(*(bench.engine.deliver(*answer) for answer in answers))
    written = [what for what, _ in saver.happened].index("written")
    threads_read_before = {thread for what, thread in saver.happened[:written] if what == "read"}
    assert len(threads_read_before) < len(answers)
    assert bench.acts == ["act"] * len(answers)


class Kept(TypedDict, total=False):
    done: Annotated[list[str], lambda kept, new: kept.extend(new) or kept]
    """Values that the reducer changes in place, as it may."""


async def test_in_place_reducer_runs_once_per_result() -> None:
    """The result of a node beside the waiting one is in the cached state, and once in the state after it."""
    ends: list[Any] = []
    for looked_at in (False, True):
        saver = CountingSaver()
        builder = StateGraph(Kept)
        builder.add_node("waits", lambda _: {"done": [interrupt("?")]})
        builder.add_node("beside", lambda _: {"done": ["beside"]})
        builder.add_edge(START, "waits")
        builder.add_edge(START, "beside")
        graph: Any = builder.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "t"}}
        await graph.ainvoke({"done": ["input"]}, config)
        if looked_at:
            look = CheckpointCache(saver, ManualClock())
            await graph.aget_state(look.lent(config), subgraphs=True)
            look.end()
            config = look.lent(config)
        ends.append((await graph.ainvoke(Command(resume="answer"), config))["done"])
    assert ends[0] == ends[1]
    assert ends[1].count("beside") == 1
