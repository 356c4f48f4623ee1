"""A question in a thread with a long history is found by few reads; old routes are searched in pages."""

from dataclasses import replace
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from awaithumans_adapters.langgraph import GraphEngine, HumanInterrupts, await_human
from awaithumans_adapters.langgraph.delivery.history import PAGE, Search, SearchUnfinishedError, search
from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of
from awaithumans_core import Outcome, Route
from tests.support.counting_savers import CountingSaver
from tests.support.graph_bench import Bench, State
from tests.support.workflows import Decision

HISTORY = 120
"""Number of checkpoints after the question; a search of the whole history reads more."""


class ListCountingSaver(CountingSaver):
    """A saver that also counts the checkpoints that it lists."""

    def list(self, *args: Any, **options: Any) -> Any:
        for saved in super().list(*args, **options):
            self.reads += 1
            yield saved


@pytest.fixture
def saver() -> ListCountingSaver:
    return ListCountingSaver()


def asking(bench: Bench, name: str = "a") -> Any:
    async def node(state: State) -> State:
        return {"answers": [(name, (await bench.ask(name)).approved)]}

    return node


def steps(bench: Bench) -> None:
    """Return a graph that asks in its first round and then only counts."""
    builder = StateGraph(State)
    builder.add_node("ask", asking(bench))
    builder.add_node("step", lambda state: {"round": state.get("round", 0) + 1})
    builder.add_conditional_edges(START, lambda state: "step" if state.get("round") is not None else "ask")
    builder.add_conditional_edges("ask", lambda _: END)
    builder.add_conditional_edges("step", lambda state: END if state["round"] % HISTORY == 0 else "step")
    bench.use(builder)


async def run_steps(bench: Bench) -> None:
    await bench.compiled.ainvoke({"round": 0}, {**bench.config, "recursion_limit": 2 * HISTORY})


async def reads_of(bench: Bench, work: Any) -> int:
    bench.saver.reads = 0
    await work
    return int(bench.saver.reads)


async def test_superseded_question_is_found_in_a_long_history_by_few_reads(bench: Bench) -> None:
    """The number of reads does not depend on the length of the history."""
    steps(bench)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    route = await bench.route("a")
    assert route.asked_at is not None
    await run_steps(bench)
    bench.saver.reads = 0
    assert "moved on" in (await bench.engine.orphaned(route) or "")
    assert bench.saver.reads < 10


async def test_redelivery_after_a_long_run_reads_few_checkpoints(bench: Bench) -> None:
    """An answer that was taken is recognised without reading the checkpoints after it."""
    steps(bench)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("a", True)
    await run_steps(bench)
    assert await reads_of(bench, bench.give("a", True)) < 10


async def test_old_route_is_searched_in_pages_with_the_same_result(bench: Bench) -> None:
    """Routes of earlier releases name no checkpoint; superseded, taken and waiting questions are distinguished."""
    steps(bench)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = replace(await bench.route("a"), asked_at=None)
    assert await bench.engine.orphaned(old) is None
    await run_steps(bench)
    assert "moved on" in (await bench.engine.orphaned(old) or "")
    bench.store = None
    await bench.compiled.ainvoke({"answers": [], "round": None}, bench.config)
    await bench.give("a", True)
    await run_steps(bench)
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}


async def test_search_that_ran_out_of_time_continues_where_it_stopped(bench: Bench) -> None:
    """Each call reads at least one page, and no page twice."""
    steps(bench)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    key = (await bench.task("a"))["idempotency_key"]
    await run_steps(bench)
    so_far, calls = Search(), 0

    async def matches(saved: CheckpointTuple, _: str) -> bool:
        return any(channel == "__interrupt__" for _, channel, _ in saved.pending_writes or ())

    bench.saver.reads = 0
    found: list[RunnableConfig] = []
    while not found:
        calls += 1
        try:
            found = await search(bench.saver, bench.thread_id, key, so_far, matches, saver_is_sync=False, seconds=0)
        except SearchUnfinishedError:
            continue
    assert calls > HISTORY // PAGE
    assert HISTORY < bench.saver.reads < HISTORY + 2 * PAGE
    assert len(found) == 1


async def test_question_asked_again_at_another_checkpoint_is_one_wait(bench: Bench) -> None:
    """A key of the application is one question, whose wait names the checkpoint that asked last."""

    async def node(state: State) -> State:
        decision = await await_human(
            task=f"a {bench.thread_id}",
            response_schema=Decision,
            human_tasks=bench.human_tasks,
            idempotency_key=f"own-{bench.thread_id}",
        )
        return {"answers": [("a", decision.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    first = await bench.route("a")
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    second = await bench.route("a")
    assert first == second
    assert first.digest == second.digest
    assert first.asked_at != second.asked_at
    assert bench.store is not None
    assert len(await bench.store.queries.find((await bench.task("a"))["id"])) == 1
    assert await bench.engine.orphaned(second) is None
    for _ in range(2):
        await bench.give("a", True)
    assert bench.acts == ["act"]


@pytest.mark.parametrize("in_subgraph", [False, True])
async def test_interrupt_of_an_unmodified_node_is_found_by_few_reads(bench: Bench, *, in_subgraph: bool) -> None:
    """Each answer to two interrupts of one node is recognised as taken, whatever the outer graph still shows."""

    def node(state: State) -> State:
        return {"answers": [(interrupt("one"), True), (interrupt("two"), True)]}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    bench.graph(node=builder.compile() if in_subgraph else node)
    config: Any = {**bench.config, "callbacks": [HumanInterrupts(human_tasks=bench.human_tasks)]}
    bench.engine = GraphEngine({"bench": bench.compiled}, config=lambda *_: config)
    await bench.compiled.ainvoke({"answers": []}, config)
    routes: list[tuple[Route, Outcome]] = []
    for answer in ("yes", "no"):
        (waiting,) = (await bench.compiled.aget_state(config)).interrupts
        key = key_of(waiting, bench.thread_id)
        tasks = await bench.people.find("one" if answer == "yes" else "two")
        task = next(each for each in tasks if each["idempotency_key"] == key)
        route = await bench.registered(key, task["id"])
        assert route.asked_at
        outcome = Outcome.model_validate(
            {"task_id": task["id"], "idempotency_key": key, "status": "completed", "response": {"answer": answer}}
        )
        routes.append((route, outcome))
        await bench.engine.deliver(route, outcome)
        bench.saver.reads = 0
        await bench.engine.deliver(route, outcome)
        assert bench.saver.reads < 20
        await bench.engine.deliver(replace(route, asked_at=None), outcome)
    for delivery in routes:
        await bench.engine.deliver(*delivery)
    assert await bench.answers() == {("yes", True), ("no", True)}
    assert bench.acts == ["act"]


async def test_branches_beside_the_question_are_read_once_per_resume(bench: Bench) -> None:
    """In a fan-out over subgraphs a resume reads each branch once, as LangGraph itself does."""
    branches = 12
    inner = StateGraph(State)
    inner.add_node("ask", lambda state: {"answers": [(f"b{state['round']}", interrupt(state["round"]))]})
    inner.add_edge(START, "ask")
    builder = StateGraph(State)
    builder.add_node("branch", inner.compile())
    builder.add_conditional_edges(START, lambda _: [Send("branch", {"round": n}) for n in range(branches)])

    async def first_resume(saver: Any, resume: Any) -> int:
        graph: Any = builder.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "t"}}
        await graph.ainvoke({"answers": []}, config)
        shown = (await graph.aget_state(config)).interrupts[0]
        saver.reads = 0
        await resume(graph, config, shown)
        return int(saver.reads)

    async def plain(graph: Any, config: Any, shown: Any) -> None:
        await graph.ainvoke(Command(resume={shown.id: True}), config)

    async def ours(graph: Any, config: Any, shown: Any) -> None:
        key = key_of(shown, "t")
        yes = Outcome.model_validate(
            {"task_id": "t", "idempotency_key": key, "status": "completed", "response": {"answer": "yes"}}
        )
        await GraphEngine({"g": graph}).deliver(Route("langgraph", {"thread_id": "t"}, key), yes)

    alone = await first_resume(ListCountingSaver(), plain)
    with_engine = await first_resume(ListCountingSaver(), ours)
    assert with_engine - alone < 5
