"""Interrupts without a callback: the relay finds them in the checkpointer and creates one task for each."""

import asyncio
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from devservers import free_port
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from awaithumans_adapters.langgraph import GraphEngine, HumanInterrupts
from awaithumans_core import HumanTasks, Outcome, Route, ServerUnreachableError, Settings, SettingsError
from awaithumans_relay.sweep.adoption import Adoption
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay, running_relay, settings_for
from tests.support.savers import SAVERS, SYNC, opener
from tests.support.servers import FakeServer


class State(TypedDict, total=False):
    colour: str


def graph_on(saver: Any, question: str, acts: list[str], *, inner: bool = False) -> Any:
    """Return a graph that interrupts in an unmodified node or in one of a subgraph, and then acts."""

    def ask(state: State) -> State:
        return {"colour": interrupt(question)}

    def act(state: State) -> State:
        acts.append(state["colour"])
        return {}

    asks: Any = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile() if inner else ask
    builder = StateGraph(State).add_node("ask", asks).add_node("act", act)
    return builder.add_edge(START, "ask").add_edge("ask", "act").add_edge("act", END).compile(checkpointer=saver)


async def leave_stream(graph: Any, config: Any) -> None:
    """Read a stream as user interfaces do: stop when the interrupt is shown."""

    def sync() -> None:
        for chunk in graph.stream({}, config, stream_mode="updates"):
            if "__interrupt__" in chunk:
                return

    if isinstance(graph.checkpointer, SYNC):
        await asyncio.to_thread(sync)
        return
    async for chunk in graph.astream({}, config, stream_mode="updates"):
        if "__interrupt__" in chunk:
            break
    async with asyncio.timeout(10):  # LangGraph stores the checkpoint in the background
        while not (await graph.aget_state(config)).interrupts:
            await asyncio.sleep(0.01)


class RelayUnderTest:
    """A relay, a question, and the tasks that were made of it."""

    def __init__(self, relay: RunningRelay, fake: FakeServer) -> None:
        self.relay = relay
        self.fake = fake
        self.question = f"Which colour, {uuid.uuid4().hex[:8]}?"
        self.thread_id = uuid.uuid4().hex
        self.config: Any = {"configurable": {"thread_id": self.thread_id}}
        self.acts: list[str] = []

    def people(self, settings: Settings | None = None) -> HumanInterrupts:
        return HumanInterrupts(human_tasks=HumanTasks(settings or self.relay.settings, patience=0.2))

    def tasks(self) -> list[Any]:
        return [task for task in self.fake.fake.tasks if task.asked["task"] == self.question]

    async def answer(self, engine: GraphEngine) -> None:
        (task,) = self.tasks()
        key = task.asked["idempotency_key"]
        outcome = Outcome(task_id=task.id, status="completed", response={"answer": "blue"}, idempotency_key=key)
        (wait,) = await self.relay.store.queries.find(task.id)
        await engine.deliver(wait.route, outcome)


class Registrar:
    """An engine that only has the name; tests deliver the answers."""

    name = "langgraph"

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        raise AssertionError("nothing is answered")


@pytest.fixture(scope="module")
async def relay(fake: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningRelay]:
    async with running_relay([Registrar()], fake, tmp_path_factory.mktemp("adoption")) as running:
        yield running


@pytest.fixture
def desk(relay: RunningRelay, fake: FakeServer) -> RelayUnderTest:
    return RelayUnderTest(relay, fake)


@pytest.mark.parametrize("inner", [False, True], ids=["node", "subgraph"])
@pytest.mark.parametrize(
    "saver",
    ["sqlite-async", *(pytest.param(name, marks=pytest.mark.edges) for name in SAVERS if name != "sqlite-async")],
)
async def test_interrupt_of_an_abandoned_stream_is_asked_once(
    desk: RelayUnderTest,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    saver: str,
    inner: bool,  # noqa: FBT001
) -> None:
    """Without any callback one task is created, and the thread continues with the answer."""
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if "postgres" in saver else None
    async with opener(saver, postgres.database() if postgres else str(tmp_path / "threads.db"))() as opened:
        graph = graph_on(opened, desk.question, desk.acts, inner=inner)
        await leave_stream(graph.with_config(callbacks=[desk.people()]), desk.config)
        assert desk.tasks() == []
        engine, other = (GraphEngine({"paint": graph.with_config(callbacks=[desk.people()])}) for _ in range(2))
        assert await engine.adopt() == 1
        assert [await other.adopt(), await engine.adopt(), await engine.adopt_thread(desk.thread_id)] == [1, 0, 0]
        await desk.answer(engine)
        assert desk.acts == ["blue"]
        assert [await other.adopt(), await engine.adopt()] == [0, 0]


async def test_callback_and_relays_create_one_task(desk: RelayUnderTest) -> None:
    """The key is derived from the interrupt, so a callback and several relays open one task."""
    graph = graph_on(InMemorySaver(), desk.question, desk.acts)
    await leave_stream(graph, desk.config)
    engines = [GraphEngine({"paint": graph.with_config(callbacks=[desk.people()])}) for _ in range(3)]
    config = {**desk.config, "callbacks": [desk.people()]}
    await asyncio.gather(graph.ainvoke(None, config), *(engine.adopt() for engine in engines))
    assert len(desk.tasks()) == 1


async def test_thread_is_resumed_by_the_graph_that_it_names(desk: RelayUnderTest) -> None:
    """With graphs that share checkpointer and node name, the thread's own graph is resumed."""
    saver = InMemorySaver()
    graphs = {name: graph_on(saver, desk.question, desk.acts).with_config(callbacks=[desk.people()]) for name in "ab"}
    desk.config["configurable"]["graph_id"] = "b"
    await leave_stream(graphs["b"], desk.config)
    engine = GraphEngine(graphs)
    assert await engine.adopt() == 1
    (wait,) = await desk.relay.store.queries.find(desk.tasks()[0].id)
    assert wait.route.target == {"thread_id": desk.thread_id, "graph_id": "b"}
    await desk.answer(engine)
    assert desk.acts == ["blue"]


async def test_interrupt_is_asked_later_if_the_server_was_unreachable(
    desk: RelayUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    """One round reports the reason once, and a later round creates the task."""
    nowhere = desk.relay.settings.model_copy(update={"url": f"http://127.0.0.1:{free_port()}"})
    saver = InMemorySaver()
    graph = graph_on(saver, desk.question, desk.acts)
    with pytest.raises(ServerUnreachableError):
        await graph.ainvoke({}, {**desk.config, "callbacks": [desk.people(nowhere)]})
    away = GraphEngine({"paint": graph.with_config(callbacks=[desk.people(nowhere)])})
    with caplog.at_level(logging.WARNING, logger="awaithumans.langgraph"):
        assert [await away.adopt(), await away.adopt()] == [0, 0]
    assert len([record for record in caplog.records if desk.thread_id in record.getMessage()]) == 1
    with pytest.raises(ServerUnreachableError):
        await away.adopt_thread(desk.thread_id)
    engine = GraphEngine({"paint": graph.with_config(callbacks=[desk.people()])})
    assert await engine.adopt() == 1
    await desk.answer(engine)
    assert desk.acts == ["blue"]


async def test_delivery_asks_other_interrupts_of_the_thread(desk: RelayUnderTest) -> None:
    """A delivery creates the task of a second interrupt on its thread without waiting for a round."""

    def ask(name: str) -> Any:
        return lambda _: {name: interrupt(f"{desk.question} {name}")}

    class Both(TypedDict, total=False):
        left: str
        right: str

    builder = StateGraph(Both).add_node("left", ask("left")).add_node("right", ask("right"))
    graph: Any = builder.add_edge(START, "left").add_edge(START, "right").compile(checkpointer=InMemorySaver())
    await leave_stream(graph, desk.config)

    def one_by_one(shown: Any) -> str:
        return str(shown.value)

    people = HumanInterrupts(human_tasks=desk.relay.human_tasks(), question=one_by_one)
    engine = GraphEngine({"both": graph.with_config(callbacks=[people])})
    shown = (await graph.aget_state(desk.config)).interrupts
    assert await people.adopt(shown[0], {"thread_id": desk.thread_id})
    (task,) = [task for task in desk.fake.fake.tasks if task.asked["task"].startswith(desk.question)]
    (wait,) = await desk.relay.store.queries.find(task.id)
    key = task.asked["idempotency_key"]
    outcome = Outcome(task_id=task.id, status="completed", response={"answer": "blue"}, idempotency_key=key)
    await engine.deliver(wait.route, outcome)
    assert len([task for task in desk.fake.fake.tasks if task.asked["task"].startswith(desk.question)]) == 2


async def test_graph_without_human_interrupts_is_not_adopted(desk: RelayUnderTest) -> None:
    """Without `HumanInterrupts` among its callbacks no task is created, and a call for its thread states the remedy."""
    graph = graph_on(InMemorySaver(), desk.question, desk.acts)
    await leave_stream(graph, desk.config)
    engine = GraphEngine({"paint": graph})
    assert await engine.adopt() == 0
    with pytest.raises(SettingsError, match=r"with_config\(callbacks=\[HumanInterrupts"):
        await engine.adopt_thread(desk.thread_id)
    assert desk.tasks() == []


async def test_failed_round_is_repeated_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """Rounds continue when a checkpointer is unreachable, and one reason is reported once."""

    class Unreadable:
        name = "langgraph"
        rounds = 0

        async def deliver(self, route: Route, outcome: Outcome) -> None: ...

        async def adopt(self) -> int:
            self.rounds += 1
            raise OSError("the disk is full")

    engine = Unreadable()
    with caplog.at_level(logging.WARNING, logger="awaithumans.relay"):
        async with Adoption([engine], seconds=0.01).running(), asyncio.timeout(10):
            while engine.rounds < 3:
                await asyncio.sleep(0.01)
    assert len([record for record in caplog.records if "the disk is full" in record.getMessage()]) == 1


DIES = """
import os, sys
from langgraph.checkpoint.sqlite import SqliteSaver
from awaithumans_adapters.langgraph import HumanInterrupts
from awaithumans_core import HumanTasks, Settings
from tests.integration.test_langgraph_adoption import graph_on

database, question, thread_id, url, relay = sys.argv[1:]
settings = Settings(url=url, admin_api_token="t", relay_url=relay, relay_secret=[os.environ["SECRET"]])
with SqliteSaver.from_conn_string(database) as saver:
    graph = graph_on(saver, question, []).with_config(callbacks=[HumanInterrupts(human_tasks=HumanTasks(settings))])
    config = {"configurable": {"thread_id": thread_id}}
    for chunk in graph.stream({}, config):
        while "__interrupt__" in chunk:
            if graph.get_state(config).interrupts:  # LangGraph stores the checkpoint in the background
                os._exit(9)
"""


@pytest.mark.edges
async def test_interrupt_of_a_killed_process_is_asked_by_a_later_relay(fake: FakeServer, tmp_path: Path) -> None:
    """A relay that starts later finds the thread on its schedule, asks, and resumes it."""
    database, port = str(tmp_path / "threads.db"), free_port()
    settings = settings_for(fake, f"http://127.0.0.1:{port}")
    async with AsyncSqliteSaver.from_conn_string(database) as saver:
        people = HumanInterrupts(human_tasks=HumanTasks(settings))
        desk = RelayUnderTest(RunningRelay("", settings, None), fake)  # type: ignore[arg-type]  # its relay starts below
        environment = {**os.environ, "SECRET": settings.relay_secret[0].get_secret_value()}
        command = [sys.executable, "-c", DIES, database, desk.question, desk.thread_id, fake.url, settings.relay()]
        died = await asyncio.to_thread(subprocess.run, command, check=False, timeout=60, env=environment)
        assert died.returncode == 9
        engine = GraphEngine({"paint": graph_on(saver, desk.question, desk.acts).with_config(callbacks=[people])})
        async with running_relay([engine], fake, tmp_path, settings=settings, port=port) as relay, asyncio.timeout(20):
            while not desk.tasks():
                await asyncio.sleep(0.05)
            (task,) = desk.tasks()
            fake.fake.complete(task.id, {"answer": "blue"})
            await relay.check_now(task.id)
            await relay.wait_for(task.id, "delivered")
    assert desk.acts == ["blue"]
