"""The streams of a thread show an application's own steps, the question, and the continuation."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, GraphEvent, await_human, await_human_sync
from tests.support.graph_bench import Bench, State
from tests.support.savers import SYNC, opener
from tests.support.workflows import Decision

SECRET = "only for the reviewer"
INTERNAL = "awaithumans_open_wait"


def asking(bench: Bench, *, sync: bool = False, inner: bool = False) -> Any:
    """Return a graph that asks, optionally in a subgraph, and then acts and streams that it does."""
    options: Any = {
        "task": f"streams? {bench.thread_id}",
        "payload": {"secret": SECRET},
        "response_schema": Decision,
        "human_tasks": bench.human_tasks,
    }

    async def ask(state: State) -> State:
        return {"answers": [("streams?", (await await_human(**options)).approved)]}

    def ask_sync(state: State) -> State:
        return {"answers": [("streams?", await_human_sync(**options).approved)]}

    def act(state: State) -> State:
        bench.acts.append("act")
        get_stream_writer()("acting")
        return {"round": 1}

    asks: Any = ask_sync if sync else ask
    asks = StateGraph(State).add_node("asks", asks).add_edge(START, "asks").compile() if inner else asks
    builder = StateGraph(State).add_node("ask", asks).add_node("act", act)
    return builder.add_edge(START, "ask").add_edge("ask", "act").add_edge("act", END).compile(checkpointer=bench.saver)


def shown(parts: Any) -> str:
    return json.dumps(parts, default=repr)


@pytest.mark.parametrize("inner", [False, True], ids=["node", "subgraph"])
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_internal_task_is_in_no_stream(bench: Bench, *, sync: bool, inner: bool) -> None:
    """The streams have the application's nodes and the interrupt, and not the internal task that asks."""
    graph = asking(bench, sync=sync, inner=inner)
    modes: Any = ["updates", "tasks", "debug", "messages", "custom"]
    parts = [part async for part in graph.astream({}, bench.config, stream_mode=modes, subgraphs=True)]
    assert ("asks" if inner else "ask") in shown(parts)
    assert f"streams? {bench.thread_id}" in shown(parts)  # the interrupt of the question
    assert INTERNAL not in shown(parts)
    assert SECRET not in shown(parts)
    assert (await bench.task("streams?"))["payload"] == {"secret": SECRET}


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_internal_task_calls_no_callbacks(bench: Bench, *, sync: bool) -> None:
    """Callbacks, which feed `astream_events` and tracers, are called for neither the task nor its question."""
    graph = asking(bench, sync=sync)
    events = [event async for event in graph.astream_events({}, bench.config, version="v2")]
    assert "ask" in {event["name"] for event in events}
    assert INTERNAL not in shown(events)
    assert SECRET not in shown(events)


async def test_hidden_tasks_of_one_node_are_remembered(bench: Bench) -> None:
    """A resumed node with several hidden tasks creates no second task for any of them."""

    async def both(state: State) -> State:
        left, right = await asyncio.gather(bench.ask("left"), bench.ask("right"))
        return {"answers": [("left", left.approved), ("right", right.approved)]}

    bench.graph(both=both)
    parts = [part async for part in bench.compiled.astream({}, bench.config, stream_mode=["updates", "tasks"])]
    assert INTERNAL not in shown(parts)
    await bench.give("left", True)
    await bench.give("right", False)
    assert await bench.answers() == {("left", True), ("right", False)}
    assert len(await bench.people.find(f"left {bench.thread_id}")) == 1


@pytest.mark.parametrize("saver", ["memory", pytest.param("sqlite", marks=pytest.mark.edges)])
async def test_on_event_receives_the_continuation(bench: Bench, tmp_path: Path, saver: str) -> None:
    """`on_event` receives each part of the stream from the answer to the end."""
    events: list[GraphEvent] = []

    async def on_event(event: GraphEvent) -> None:
        events.append(event)

    async with opener(saver, str(tmp_path / "threads.db"))() as opened:
        bench.saver = opened
        graph = asking(bench, sync=isinstance(opened, SYNC))
        bench.run(graph, on_event=on_event)
        await asyncio.to_thread(graph.invoke, {}, bench.config) if isinstance(opened, SYNC) else await graph.ainvoke(
            {}, bench.config
        )
        await bench.give("streams?", True)
        told = [(event.mode, event.data) for event in events]
        assert told == [
            ("updates", {"ask": {"answers": [("streams?", True)]}}),
            ("custom", "acting"),
            ("updates", {"act": {"round": 1}}),
        ]
        assert {(event.graph, event.thread_id, event.namespace) for event in events} == {("bench", bench.thread_id, ())}
        await bench.give("streams?", True)
        assert (len(events), bench.acts) == (3, ["act"])


async def test_on_event_receives_chosen_modes_and_subgraphs(bench: Bench) -> None:
    """The application chooses the modes, and the parts of a subgraph name it."""
    events: list[GraphEvent] = []

    async def on_event(event: GraphEvent) -> None:
        events.append(event)

    graph = asking(bench, inner=True)
    bench.run(graph, on_event=on_event, stream_mode=["tasks"])
    await graph.ainvoke({}, bench.config)
    await bench.give("streams?", True)
    assert {event.mode for event in events} == {"tasks"}
    assert {event.namespace[0].partition(":")[0] for event in events if event.namespace} == {"ask"}
    assert INTERNAL not in shown([event.data for event in events])


async def test_failing_on_event_does_not_affect_the_graph(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is taken and acted on once, and the failure is logged."""

    async def on_event(event: GraphEvent) -> None:
        raise ConnectionError("the browser is disconnected")

    graph = asking(bench)
    bench.engine = GraphEngine({"bench": graph}, on_event=on_event)
    await graph.ainvoke({}, bench.config)
    with caplog.at_level(logging.ERROR, logger="awaithumans.langgraph"):
        await bench.give("streams?", True)
    assert bench.acts == ["act"]
    assert "on_event" in caplog.text
