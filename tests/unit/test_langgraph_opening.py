"""Graphs that an engine opens itself: on the right event loop, for as long as the relay runs."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, GraphThread, await_human_sync
from awaithumans_core import HumanTasks, Outcome, Route, Settings, SettingsError, TargetNotReady, TaskStatus
from awaithumans_core.relay_loops import refuse_to_block
from awaithumans_relay import create_app
from tests.support.relay import settings_without_servers
from tests.support.workflows import Decision

Source = Callable[[Path], Any]


class State(TypedDict, total=False):
    approved: bool


def approve(_: State) -> State:
    return {"approved": True}


def compiled(saver: Any, node: Any = approve) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile(saver)


@asynccontextmanager
async def on_disk(path: Path) -> AsyncGenerator[Any]:
    async with AsyncSqliteSaver.from_conn_string(str(path / "checkpoints.db")) as saver:
        yield compiled(saver)


async def in_memory(_: Path) -> Any:
    return compiled(InMemorySaver())


SOURCES: dict[str, Source] = {
    "async context manager": lambda folder: partial(on_disk, folder),
    "async function": lambda folder: partial(in_memory, folder),
    "function": lambda _: lambda: compiled(InMemorySaver()),
    "compiled": lambda _: compiled(InMemorySaver()),
}


@pytest.mark.parametrize("thread", [False, True], ids=["caller's loop", "thread"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
async def test_graph_runs_while_the_engine_is_open(
    source: Source,
    thread: bool,  # noqa: FBT001 - a test parameter
    tmp_path: Path,
) -> None:
    """Every kind of source is opened on the event loop of the graphs, twice in a row, and the thread ends with it."""
    graphs = GraphThread() if thread else None
    engine = GraphEngine({"refunds": source(tmp_path)}, thread=graphs)
    for _ in range(2):
        async with engine.opened(), engine.opened():
            graph = engine.graph("refunds")
            ran = await engine.in_thread(graph.ainvoke({}, {"configurable": {"thread_id": "t"}}))
            assert ran == {"approved": True}
            await engine.check()
            assert getattr(graph.checkpointer, "loop", None) in (
                None,
                graphs.loop if graphs else asyncio.get_running_loop(),
            )
        assert "awaithumans-graphs" not in {each.name for each in threading.enumerate()}


async def test_graph_is_closed_with_the_engine(tmp_path: Path) -> None:
    """A graph that is not open is refused with the reason, and so is a name that the engine does not have."""
    engine = GraphEngine({"refunds": partial(on_disk, tmp_path)})
    with pytest.raises(SettingsError, match="'refunds' is not open: the relay opens it when it starts"):
        await engine.check()
    async with engine.opened():
        saver: Any = engine.graph("refunds").checkpointer
        with pytest.raises(SettingsError, match="no graph 'claims'; it has: refunds"):
            engine.graph("claims")
    with pytest.raises(SettingsError, match="is not open"):
        engine.graph("refunds")
    with pytest.raises((ValueError, RuntimeError)):  # its connection is closed
        await saver.aget({"configurable": {"thread_id": "t"}})


async def test_graph_is_opened_once_by_blocks_that_begin_together() -> None:
    """The second block waits until the graph is open."""
    opened: list[str] = []

    async def slow() -> Any:
        opened.append("refunds")
        await asyncio.sleep(0)
        return compiled(InMemorySaver())

    engine = GraphEngine({"refunds": slow})
    both = asyncio.Barrier(2)

    async def block() -> None:
        async with engine.opened():
            engine.graph("refunds")
            await both.wait()

    await asyncio.gather(block(), block())
    assert opened == ["refunds"]


@pytest.mark.parametrize("graph_id", [{}, {"graph_id": "refunds"}], ids=["any graph", "a graph by its name"])
async def test_answer_for_a_graph_that_is_not_open_is_kept(graph_id: dict[str, str], tmp_path: Path) -> None:
    """The delivery is not a failed one: it is repeated when the graph is open."""
    engine = GraphEngine({"refunds": partial(on_disk, tmp_path)})
    route = Route(engine="langgraph", target={"thread_id": "t", **graph_id}, idempotency_key="langgraph:k")
    with pytest.raises(TargetNotReady, match="'refunds' is not open"):
        await engine.deliver(route, Outcome(task_id="t", status=TaskStatus.COMPLETED, response={"approved": True}))


def fails() -> Any:
    raise OSError("disk full")


def quotes_its_address() -> Any:
    raise ValueError('missing "=" after "postgres//me:hush@db:1/x" in connection info string')


async def of_another_loop(folder: Path) -> Any:
    """Return a graph whose checkpointer was opened by another `asyncio.run`."""

    async def graph() -> Any:
        async with on_disk(folder) as opened:
            return opened

    return await asyncio.to_thread(asyncio.run, graph())


UNUSABLE: dict[str, tuple[Any, str]] = {
    "fails": (fails, r"graph 'refunds': fails\(\) fails \(OSError: disk full\): give a compiled graph, or a function"),
    "quotes its address": (quotes_its_address, r'ValueError: missing "=" after "\*\*\*@db:1/x" in connection'),
    "not compiled": (lambda: StateGraph(State), "is a StateGraph and not a compiled graph"),
    "no checkpointer": (lambda: compiled(None), "has no checkpointer"),
    "another loop": (of_another_loop, "AsyncSqliteSaver of graph 'refunds' belongs to another event loop"),
}


@pytest.fixture
def settings() -> Settings:
    return settings_without_servers()


@pytest.mark.parametrize("case", UNUSABLE)
async def test_relay_does_not_start_with_an_unusable_graph(case: str, settings: Settings, tmp_path: Path) -> None:
    """The application fails at its start, with what to do, instead of at the first answer."""
    source, reason = UNUSABLE[case]
    if source is of_another_loop:
        source = await of_another_loop(tmp_path)
    app = create_app([GraphEngine({"refunds": source})], settings=settings, database=f"sqlite:///{tmp_path}/waits.db")
    with pytest.raises(SettingsError, match=reason):
        async with app.router.lifespan_context(app):
            pass


async def test_sync_question_on_the_relays_loop_is_refused(settings: Settings, tmp_path: Path) -> None:
    """`graph.invoke` on the event loop of a relay would wait for that relay for ever, so it fails at once."""

    def ask(_: State) -> State:
        asking = HumanTasks(settings)
        return {"approved": await_human_sync(task="?", response_schema=Decision, human_tasks=asking).approved}

    graph = compiled(InMemorySaver(), ask)
    app = create_app([GraphEngine({"refunds": graph})], settings=settings, database=f"sqlite:///{tmp_path}/waits.db")
    async with app.router.lifespan_context(app):
        with pytest.raises(SettingsError, match=r"await graph\.ainvoke"):
            graph.invoke({}, {"configurable": {"thread_id": "t"}})
        await asyncio.to_thread(refuse_to_block)
    refuse_to_block()
