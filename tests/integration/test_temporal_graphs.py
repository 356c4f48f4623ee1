"""LangGraph graphs inside Temporal: nodes ask with Temporal's `await_human`, and LangGraph's refuses."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from devservers import TemporalServer
from examples import temporal_langgraph_refund as example
from temporalio.client import Client, WorkflowFailureError
from temporalio.langgraph import LangGraphPlugin
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from tests.support.graph_workflow import ACTS, RunGraph, in_activity, in_workflow, two_people, wrong_way
from tests.support.people import People
from tests.support.relay import RunningRelay


@pytest.fixture
def name() -> str:
    return f"q-{uuid.uuid4().hex}"


@asynccontextmanager
async def worker(
    temporal: TemporalServer, temporal_relay: RunningRelay, workflows: list[type], graphs: dict[str, Any]
) -> AsyncGenerator[Client]:
    """Return a worker without a cache, which replays the whole graph at every workflow task."""
    plugins = [HumanTasksPlugin(temporal_relay.settings), LangGraphPlugin(graphs=graphs)]
    client = await Client.connect(temporal.address, plugins=plugins)
    async with Worker(client, task_queue="graphs", workflows=workflows, max_cached_workflows=0):
        yield client


async def test_example_continues_with_the_answer_through_replays(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str
) -> None:
    """A node asks, and the graph continues with the answer through replays."""
    async with worker(
        temporal, temporal_relay, [example.GraphRefundWorkflow], {"refunds": example.refunds()}
    ) as client:
        run = example.GraphRefundWorkflow.run
        handle = await client.start_workflow(run, args=[name, 250.0], id=name, task_queue="graphs")
        task = await people.answer(f"Approve $250 refund for {name}?", {"approved": True})
        await temporal_relay.check_now(task["id"])
        assert await asyncio.wait_for(handle.result(), 20) == "paid"


async def test_parallel_nodes_get_their_own_answers(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str
) -> None:
    """Parallel nodes each get their own answer, and the next node runs once."""
    async with worker(temporal, temporal_relay, [RunGraph], {"two": two_people()}) as client:
        handle = await client.start_workflow(RunGraph.run, args=["two", name], id=name, task_queue="graphs")
        for side, approved in [("right", True), ("left", False)]:
            task = await people.answer(f"{name} {side}", {"approved": approved})
            await temporal_relay.check_now(task["id"])
        told = await asyncio.wait_for(handle.result(), 20)
        assert (told["left"], told["right"]) == (False, True)
        assert ACTS.count(name) == 1


async def test_cancelled_workflow_cancels_the_tasks_of_its_graph(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str
) -> None:
    """A workflow that is cancelled while its graph waits cancels its tasks."""
    async with worker(temporal, temporal_relay, [RunGraph], {"two": two_people()}) as client:
        handle = await client.start_workflow(RunGraph.run, args=["two", name], id=name, task_queue="graphs")
        tasks = [(await people.find(f"{name} {side}"))[0] for side in ("left", "right")]
        await temporal_relay.wait_for(tasks[0]["id"], "open")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 20)
        assert [(await people.task(task["id"]))["status"] for task in tasks] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("where", ["workflow", "activity"])
async def test_await_human_of_langgraph_is_refused_in_a_workflow(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str, where: str
) -> None:
    """The error of the first call names the function to use, and no task is created."""
    metadata = in_workflow() if where == "workflow" else in_activity()
    async with worker(temporal, temporal_relay, [RunGraph], {"wrong": wrong_way(metadata)}) as client:
        handle = await client.start_workflow(RunGraph.run, args=["wrong", name], id=name, task_queue="graphs")
        try:
            said = (await asyncio.wait_for(handle.result(), 20))["told"]
        except WorkflowFailureError as failed:
            cause: Any = failed.cause.__cause__
            said = f"{cause.type}: {cause.message}"
            history = (await handle.fetch_history()).events
            (started,) = [e for e in history if e.HasField("activity_task_started_event_attributes")]
            assert started.activity_task_started_event_attributes.attempt == 1
    assert said.startswith("SettingsError")
    assert "awaithumans_adapters.temporal" in said
    assert await people.find(name, count=0) == []
