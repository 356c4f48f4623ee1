"""Graphs of a real LangGraph server called through `RemoteGraph`, from a node of another graph and directly."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk.client import LangGraphClient

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_core import HumanTasks, Outcome
from tests.support import graphs, served_graphs
from tests.support.engines import CollectingEngine
from tests.support.langgraph_server import LangGraphServer, ServedCaller, WaitingServedThread
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay
from tests.support.servers import FakeServer
from tests.support.workflows import Decision

pytestmark = pytest.mark.edges


@pytest.fixture
async def client(langgraph_server: LangGraphServer) -> AsyncGenerator[LangGraphClient]:
    async with langgraph_server.client() as connected:
        yield connected


def calling(node: Any, state: type = graphs.State) -> Any:
    """Return a graph in this process with one node."""
    return StateGraph(state).add_node("calls", node).add_edge(START, "calls")


def question_of(thread_id: str) -> dict[str, Any]:
    return {"name": thread_id, "options": {"task": f"{thread_id}?"}}


async def answer(asker: ServedCaller, people: People, thread_id: str) -> None:
    """Answer the thread's question as a person and deliver the answer."""
    (task,) = await people.find(f"{thread_id}?")
    key = task["idempotency_key"]
    outcome = Outcome(task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=key)
    await asker.engine.deliver(WaitingServedThread(thread_id, asker).route(key), outcome)


@pytest.mark.parametrize("nested", [False, True], ids=["node", "node of a subgraph"])
@pytest.mark.parametrize("graph", ["ask", "ask_sync"])
async def test_question_in_a_remote_node_is_refused(
    served_relay: RunningRelay,
    client: LangGraphClient,
    people: People,
    graph: str,
    nested: bool,  # noqa: FBT001
) -> None:
    """The calling graph could not be resumed, so no task is created, and the error states the remedy."""
    node: Any = RemoteGraph(graph, client=client)
    parent = calling(calling(node).compile() if nested else node).compile(checkpointer=InMemorySaver())
    thread_id = str(uuid.uuid4())
    ended = await parent.ainvoke(question_of(thread_id), {"configurable": {"thread_id": thread_id}})
    assert ended["told"]["error"] == "SettingsError"
    assert "RemoteGraph in a node of another graph" in ended["told"]["message"]
    assert await people.find(f"{thread_id}?", count=0) == []


async def test_question_in_a_subgraph_of_a_remote_node_is_refused(
    served_relay: RunningRelay, client: LangGraphClient, people: People
) -> None:
    """The subgraph runs in a node of the server's own graph, whose metadata does not hide that of the call."""
    node: Any = RemoteGraph("swallows", client=client)
    parent = calling(node, served_graphs.State).compile(checkpointer=InMemorySaver())
    thread_id = str(uuid.uuid4())
    state: Any = {"name": thread_id, "questions": [f"{thread_id}?"], "answers": []}
    await parent.ainvoke(state, {"configurable": {"thread_id": thread_id}})
    assert await people.find(f"{thread_id}?", count=0) == []


@pytest.mark.parametrize("from_node", [False, True], ids=["application", "function of a node"])
async def test_remote_graph_called_directly_is_resumed_by_the_relay(
    served_relay: RunningRelay,
    langgraph_server: LangGraphServer,
    client: LangGraphClient,
    people: People,
    from_node: bool,  # noqa: FBT001
) -> None:
    """The call returns at the question, and the relay resumes the thread later."""
    remote = RemoteGraph("ask", client=client)
    thread_id = str(uuid.uuid4())

    async def call(state: Any) -> graphs.State:
        await remote.ainvoke(question_of(thread_id), {"configurable": {"thread_id": thread_id}})
        return {}

    asker = ServedCaller(langgraph_server)
    async with asker.ready(served_relay.settings):
        await (calling(call).compile().ainvoke({}) if from_node else call({}))
        await answer(asker, people, thread_id)
        assert asker.acts[thread_id] == 1


@pytest.mark.parametrize("shape", ["beside", "in one function"])
async def test_question_beside_a_remote_graph_is_answered(
    fake: FakeServer, tmp_path: Path, client: LangGraphClient, shape: str
) -> None:
    """The relay reads the calling thread without the remote graph's state, and resumes it."""
    remote: Any = RemoteGraph("ask", client=client)
    thread_id, acts = str(uuid.uuid4()), list[bool]()
    config: Any = {"configurable": {"thread_id": thread_id}}

    async def ask(state: graphs.State) -> graphs.State:
        decision = await await_human(task=f"{thread_id}?", response_schema=Decision, human_tasks=human_tasks())
        acts.append(decision.approved)
        return {}

    async def ask_with_remote(state: graphs.State) -> graphs.State:
        return await ask(state) if remote.name else {}

    def human_tasks() -> HumanTasks:
        return running.human_tasks()

    builder = StateGraph(graphs.State)
    if shape == "beside":
        builder.add_node("ask", ask).add_node("remote", remote)
        builder.add_edge(START, "ask").add_edge(START, "remote")
    else:
        builder.add_node("ask", ask_with_remote).add_edge(START, "ask")
    async with running_relay([CollectingEngine("langgraph")], fake, tmp_path) as running:
        graph: Any = builder.compile(checkpointer=InMemorySaver())
        await graph.ainvoke(question_of(thread_id), config)
        (task,) = [task for task in fake.fake.tasks if task.asked["task"] == f"{thread_id}?"]
        (wait,) = await running.store.queries.find(task.id)
        key = task.asked["idempotency_key"]
        outcome = Outcome(task_id=task.id, status="completed", response={"approved": True}, idempotency_key=key)
        engine = GraphEngine({"graph": graph})
        assert await engine.orphaned(wait.route) is None
        for _ in range(2):
            await engine.deliver(wait.route, outcome)
    assert acts == [True]


async def test_thread_created_by_a_remote_node_can_ask_in_a_later_run(
    served_relay: RunningRelay, langgraph_server: LangGraphServer, client: LangGraphClient, people: People
) -> None:
    """The server copies the first run's metadata to later runs, and the application can replace it."""
    node: Any = RemoteGraph("ask", client=client)
    thread_id = str(uuid.uuid4())
    await calling(node).compile().ainvoke(question_of(thread_id), {"configurable": {"thread_id": thread_id}})
    asker = ServedCaller(langgraph_server)
    async with asker.ready(served_relay.settings):
        asked, again = WaitingServedThread(thread_id, asker), question_of(thread_id)
        await asked.run(again)
        assert await people.find(f"{thread_id}?", count=0) == []
        await asked.run(again, metadata={"langgraph_checkpoint_ns": ""})
        await answer(asker, people, thread_id)
        assert (await asked.result())["approved"] is True
