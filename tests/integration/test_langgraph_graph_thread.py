"""Graphs in a thread beside the relay: a blocking node delays no callback, and all else is unchanged."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, free_port
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, GraphEvent, GraphThread, Resumed
from awaithumans_core import HumanTasks, Outcome, Route, SettingsError
from awaithumans_core.runs import RunsInMemory
from awaithumans_relay.commands.engines import EngineFlags
from tests.support.engines import CollectingEngine
from tests.support.graph_bench import Bench, State
from tests.support.people import People
from tests.support.relay import Server, running_relay, settings_for

SECONDS = 20
"""Time limit of each wait in a test."""


@pytest.fixture
async def thread() -> AsyncGenerator[GraphThread]:
    async with GraphThread() as running:
        yield running


class Blocking:
    """A node that blocks the event loop of its graph until it is released."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.entered, self.release = threading.Event(), threading.Event()

    async def __call__(self, state: State) -> State:
        self.events.append("node blocks")
        self.entered.set()
        self.release.wait(SECONDS)
        self.events.append("node returns")
        return {}


def asking(bench: Bench, then: Any, **options: Any) -> None:
    """Return a graph that asks and then runs a node."""

    async def ask(state: State) -> State:
        return {"answers": [("thread?", (await bench.ask("thread?")).approved)]}

    builder = StateGraph(State).add_node("ask", ask).add_node("then", then)
    bench.use(builder.add_edge(START, "ask").add_edge("ask", "then").add_edge("then", END), **options)


async def test_callbacks_are_acknowledged_while_a_node_blocks(
    thread: GraphThread, humans: HumansServer, people: People, tmp_path: Path
) -> None:
    """While an async node blocks, another callback is stored, acknowledged and delivered to another engine."""
    events: list[str] = []
    node, shelf = Blocking(events), CollectingEngine()
    port = free_port()
    settings = settings_for(humans, f"http://127.0.0.1:{port}")
    bench = Bench(InMemorySaver(), HumanTasks(settings), people)
    asking(bench, node, thread=thread)
    async with running_relay([bench.engine, shelf], humans, tmp_path, settings=settings, port=port) as relay:
        bench.store = relay.store
        await bench.compiled.ainvoke({}, bench.config)
        task, server = await bench.task("thread?"), Server(relay, humans)
        route = await bench.route("thread?")
        await server.call_back(route, task["id"], idempotency_key=task["idempotency_key"])
        assert await asyncio.to_thread(node.entered.wait, SECONDS)
        reply = await server.call_back(Route("shelf", {"id": "other"}, "other"), "task-2")
        events.append(f"acknowledged {reply.status_code}")
        await shelf.until(1, SECONDS)
        events.append("delivered to another engine")
        node.release.set()
        await relay.wait_for(task["id"], "delivered", SECONDS)
        await server.http.aclose()
    assert events == ["node blocks", "acknowledged 200", "delivered to another engine", "node returns"]


async def test_hooks_and_run_record_stay_on_the_callers_loop(bench: Bench, thread: GraphThread, tmp_path: Path) -> None:
    """The graph runs in the thread, while hooks and the record of runs are called in the caller's loop."""
    ran: dict[str, set[int]] = {name: set() for name in ("node", "event", "result", "record")}

    def note(name: str) -> None:
        ran[name].add(threading.get_ident())

    async def act(state: State) -> State:
        note("node")
        return {"round": 1}

    async def on_event(event: GraphEvent) -> None:
        note("event")

    async def on_result(result: Resumed) -> None:
        note("result")
        assert result.ended

    class Record(RunsInMemory):
        async def start(self, position: str, *, settled: bool) -> None:
            note("record")
            await super().start(position, settled=settled)

    opened = AsyncSqliteSaver.from_conn_string(str(tmp_path / "thread.db"))
    bench.saver = await thread.enter_async_context(opened)
    asking(bench, act, thread=thread, on_event=on_event, on_result=on_result)
    await thread.run(bench.compiled.ainvoke({}, bench.config))
    route, task = await bench.route("thread?"), await bench.task("thread?")
    answer = {"status": "completed", "response": {"approved": True}, "completed_at": "2026-01-01T00:00:00Z"}
    outcome = Outcome.model_validate({"task_id": task["id"], "idempotency_key": route.idempotency_key, **answer})
    await bench.engine.deliver_recorded(route, outcome, Record(), redriven=False)
    here = {threading.get_ident()}
    assert (ran["event"], ran["result"], ran["record"]) == (here, here, here)
    assert len(ran["node"]) == 1
    assert ran["node"] != here
    assert await bench.engine.orphaned(route) is None
    await bench.engine.check()
    assert await bench.engine.adopt() == 0


async def test_cancelled_delivery_cancels_the_node_and_waits_for_its_end(bench: Bench, thread: GraphThread) -> None:
    """A relay that stops cancels the node and waits for it, as it does without the thread."""
    entered, events = threading.Event(), list[str]()

    async def act(state: State) -> State:
        entered.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(0.05)
            events.append("node ended")
        return {}

    bench.saver = InMemorySaver()
    asking(bench, act, thread=thread)
    await bench.compiled.ainvoke({}, bench.config)
    delivery = asyncio.create_task(bench.give("thread?", True))
    assert await asyncio.to_thread(entered.wait, SECONDS)
    delivery.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivery
    assert events == ["node ended"]


async def test_checks_keep_to_their_time_limit_while_a_node_blocks(bench: Bench, thread: GraphThread) -> None:
    """Neither the sweep nor the engine's check waits for a blocking node."""
    node = Blocking([])
    bench.saver = InMemorySaver()
    asking(bench, node, thread=thread)
    await bench.compiled.ainvoke({}, bench.config)
    delivery = asyncio.create_task(bench.give("thread?", True))
    assert await asyncio.to_thread(node.entered.wait, SECONDS)
    for check in (bench.engine.check(), bench.engine.orphaned(await bench.route("thread?"))):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await check
    assert node.events == ["node blocks"]
    node.release.set()
    await delivery


async def test_saver_of_another_loop_is_refused(bench: Bench, thread: GraphThread) -> None:
    """The engine refuses it before it reads a thread, and the error names the remedy."""
    bench.graph(ask=bench.act)
    with pytest.raises(SettingsError, match=r"AsyncSqliteSaver of graph 'bench'.*async context manager"):
        GraphEngine({"bench": bench.compiled}, thread=thread)


async def test_system_exit_of_a_node_reaches_the_caller_and_keeps_the_thread(thread: GraphThread) -> None:
    """asyncio lets SystemExit out of the loop, which would otherwise end the thread."""

    async def leave() -> None:
        raise SystemExit(3)

    async def answer() -> int:
        return 42

    with pytest.raises(SystemExit):
        await thread.run(leave())
    assert await thread.run(answer()) == 42


async def test_contexts_are_entered_and_exited_in_one_task_of_the_thread() -> None:
    """Cancel scopes need one task; contexts exit in reverse order, and errors reach the caller."""
    tasks: list[tuple[str, Any]] = []

    @asynccontextmanager
    async def noted(name: str, fails: Sequence[str] = ()) -> AsyncGenerator[str]:
        tasks.append((f"enter {name}", asyncio.current_task()))
        if "enter" in fails:
            raise OSError("no way in")
        yield name
        tasks.append((f"exit {name}", asyncio.current_task()))
        if "exit" in fails:
            raise OSError("no way out")

    thread = GraphThread()
    assert await thread.enter_async_context(noted("a", ["exit"])) == "a"
    assert await thread.enter_async_context(noted("b")) == "b"
    with pytest.raises(OSError, match="no way in"):
        await thread.enter_async_context(noted("c", ["enter"]))
    with pytest.raises(OSError, match="no way out"):
        await thread.aclose()
    assert [name for name, _ in tasks] == ["enter a", "enter b", "enter c", "exit b", "exit a"]
    assert tasks[0][1] is tasks[4][1]
    await thread.aclose()
    assert "awaithumans-graphs" not in {each.name for each in threading.enumerate()}


async def test_graphs_of_the_command_line_are_opened_in_the_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With `serve --graph-thread` the saver belongs to the thread's loop and is closed with it."""
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path / "checkpoints.db"))
    async with AsyncExitStack() as stack:
        wanted = EngineFlags(
            None, ["one=tests.support.served_graphs:one_on_disk"], None, graph_thread=True, graph_context="none"
        )
        (engine,) = await wanted.engines(stack)
        assert isinstance(engine, GraphEngine)
        await engine.check()
