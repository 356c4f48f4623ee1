"""A task deleted on the server while a LangGraph thread waits is never created again."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from devservers import free_port
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from awaithumans_adapters.langgraph import GraphEngine, HumanInterrupts
from awaithumans_core import HumanTasks
from tests.support.graphs import ask_then_act, asks, asks_sync
from tests.support.relay import RunningRelay, running_relay, settings_for
from tests.support.servers import FakeServer


class FullSaver(InMemorySaver):
    """A saver that refuses task writes while it is `full`; checkpoints are written."""

    full = True

    async def aput_writes(self, *args: Any, **options: Any) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        await super().aput_writes(*args, **options)

    def put_writes(self, *args: Any, **options: Any) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().put_writes(*args, **options)


@asynccontextmanager
async def relay_of(graph: Any, fake: FakeServer, folder: Path, port: int) -> AsyncGenerator[RunningRelay]:
    settings = settings_for(fake, f"http://127.0.0.1:{port}")
    async with running_relay([GraphEngine({"ask": graph})], fake, folder, settings=settings, port=port) as relay:
        yield relay


def tasks(fake: FakeServer, question: str) -> list[str]:
    return [task.id for task in fake.fake.tasks if task.asked["task"] == question]


@pytest.mark.parametrize("node", [asks, asks_sync], ids=["async", "sync"])
async def test_node_without_its_stored_question_does_not_ask_again(
    fake: FakeServer, tmp_path: Path, question: str, node: Any
) -> None:
    """If the question was never checkpointed and its task is deleted, the node that runs again creates no task."""
    asker: list[HumanTasks] = []
    saver = FullSaver()
    graph = ask_then_act(node(lambda: asker[0]), lambda _: {}).compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}
    async with relay_of(graph, fake, tmp_path, free_port()) as relay:
        asker.append(relay.human_tasks())
        with pytest.raises(OSError, match="No space left"):
            await graph.ainvoke({"name": "n", "options": {"task": question}}, config)
        (task_id,) = tasks(fake, question)
        await relay.wait_for(task_id, "open")
        fake.fake.delete(task_id)
        saver.full = False
        await graph.ainvoke(None, config)
        assert tasks(fake, question) == []
        await relay.confirm_deletion(task_id)
        await relay.wait_for(task_id, "delivered")
        told = (await graph.aget_state(config)).values["told"]
        assert told["error"] == "TaskNotFoundError"
    assert tasks(fake, question) == []


class Reviewed(TypedDict, total=False):
    left: str
    right: str


async def test_interrupt_shown_again_is_not_asked_again(fake: FakeServer, tmp_path: Path, question: str) -> None:
    """After the answer to a sibling, an interrupt whose task was deleted gets no new task."""

    def left(state: Reviewed) -> Reviewed:
        return {"left": interrupt(f"{question} left")}

    def right(state: Reviewed) -> Reviewed:
        return {"right": interrupt(f"{question} right")}

    builder = StateGraph(Reviewed).add_node(left).add_node(right).add_edge(START, "left").add_edge(START, "right")
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}
    async with relay_of(graph, fake, tmp_path, free_port()) as relay:
        config["callbacks"] = [HumanInterrupts(human_tasks=relay.human_tasks())]
        await asyncio.to_thread(graph.invoke, {}, config)
        (deleted,) = tasks(fake, f"{question} right")
        await relay.wait_for(deleted, "open")
        fake.fake.delete(deleted)
        await asyncio.to_thread(graph.invoke, None, config)
        assert tasks(fake, f"{question} right") == []
        assert len(await relay.store.queries.find(deleted)) == 1
