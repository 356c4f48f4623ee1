"""The callers of the contract tests: each asks through its adapter's public API and counts its actions."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from awaithumans_adapters.langgraph import GraphEngine, GraphThread
from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_adapters.temporal.names import activity_id
from awaithumans_core import Engine, HumanTasks, Route, Settings
from tests.support.graphs import State, ask_then_act, asks, asks_sync
from tests.support.workflows import TASK_QUEUE, WORKFLOWS, Ask


class OpenQuestion(Protocol):
    """A question that a caller has asked."""

    name: str

    async def result(self) -> dict[str, Any]:
        """Return the caller's result, once it has continued after the answer."""
        ...

    def route(self, key: str) -> Route:
        """Return the route of the answer to its question."""
        ...

    async def stop_waiting(self) -> None:
        """Stop waiting without cancelling the task."""
        ...


class Caller(Protocol):
    """A way to ask a question."""

    @property
    def acts(self) -> Counter[str]:
        """The number of times each caller acted on its answer."""
        ...

    @property
    def engine(self) -> Engine: ...

    def ready(self, settings: Settings) -> Any:
        """Return an async context in which questions can be asked."""
        ...

    async def ask(self, question: str, **options: Any) -> OpenQuestion: ...


@dataclass
class TemporalCaller:
    """`await_human` in a workflow, as a signal wait or as an activity."""

    address: str
    via: str = "signal"
    acts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.engine: Engine = TemporalEngine(lambda: Client.connect(self.address))

    @asynccontextmanager
    async def ready(self, settings: Settings) -> AsyncGenerator[None]:
        self.client = await Client.connect(self.address, plugins=[HumanTasksPlugin(settings)])
        async with self.worker():
            yield

    def worker(self) -> Worker:
        @activity.defn
        async def act(name: str) -> None:
            self.acts[name] += 1

        return Worker(self.client, task_queue=TASK_QUEUE, workflows=WORKFLOWS, activities=[act])

    async def ask(self, question: str, **options: Any) -> "WaitingWorkflow":
        handle = await self.client.start_workflow(
            Ask.run,
            {"task": question, "via": self.via, **options},
            id=f"ask-{uuid.uuid4().hex}",
            task_queue=TASK_QUEUE,
        )
        return WaitingWorkflow(handle.id, handle, self.via)


@dataclass
class WaitingWorkflow:
    name: str
    handle: WorkflowHandle[Any, dict[str, Any]]
    via: str = "signal"

    async def result(self) -> dict[str, Any]:
        return await self.handle.result()

    async def stop_waiting(self) -> None:
        await self.handle.terminate()

    def route(self, key: str) -> Route:
        target = {"namespace": "default", "workflow_id": self.name}
        run_id = str(self.handle.result_run_id)
        waiting = {"activity_id": activity_id(run_id, 1), "run_id": run_id} if self.via == "activity" else {}
        return Route("temporal", target | waiting, key)


@dataclass
class GraphCaller:
    """`await_human` in an async node, on the async SQLite saver."""

    folder: Path
    acts: Counter[str] = field(default_factory=Counter)

    @property
    def engine(self) -> Engine:
        # The relay is built before the graph, so the engine gets the graph later.
        return self._engine

    @asynccontextmanager
    async def prepared(self) -> AsyncGenerator[None]:
        async with AsyncSqliteSaver.from_conn_string(str(self.folder / f"{uuid.uuid4().hex}.db")) as saver:
            self._compile(saver)
            yield

    @asynccontextmanager
    async def ready(self, settings: Settings) -> AsyncGenerator[None]:
        self.human_tasks = HumanTasks(settings)
        yield

    def _compile(self, saver: Any, **options: Any) -> None:
        builder = ask_then_act(self._node(), self._act)
        self.graph = builder.compile(checkpointer=saver)
        self._engine = GraphEngine({"ask": self.graph}, **options)

    def _node(self) -> Any:
        return asks(lambda: self.human_tasks)

    def _act(self, state: State) -> State:
        self.acts[state["name"]] += 1
        return {}

    async def ask(self, question: str, **options: Any) -> "WaitingThread":
        asked = WaitingThread(uuid.uuid4().hex, self)
        await self.invoke({"name": asked.name, "options": {"task": question, **options}}, asked.config)
        return asked

    async def invoke(self, state: State, config: Any) -> None:
        await self.graph.ainvoke(state, config)

    async def state(self, config: Any) -> Any:
        return await self.graph.aget_state(config)


class ThreadGraphCaller(GraphCaller):
    """`await_human` in an async node; graph, saver and engine run in a thread beside the relay."""

    @asynccontextmanager
    async def prepared(self) -> AsyncGenerator[None]:
        database = str(self.folder / f"{uuid.uuid4().hex}.db")
        async with GraphThread() as self.thread:
            self._compile(
                await self.thread.enter_async_context(AsyncSqliteSaver.from_conn_string(database)), thread=self.thread
            )
            yield

    async def invoke(self, state: State, config: Any) -> None:
        await self.thread.run(self.graph.ainvoke(state, config))

    async def state(self, config: Any) -> Any:
        return await self.thread.run(self.graph.aget_state(config))


class SyncGraphCaller(GraphCaller):
    """`await_human_sync` in a sync node, on the sync SQLite saver."""

    @asynccontextmanager
    async def prepared(self) -> AsyncGenerator[None]:
        with SqliteSaver.from_conn_string(str(self.folder / f"{uuid.uuid4().hex}.db")) as saver:
            self._compile(saver)
            yield

    def _node(self) -> Any:
        return asks_sync(lambda: self.human_tasks)

    async def invoke(self, state: State, config: Any) -> None:
        await asyncio.to_thread(self.graph.invoke, state, config)

    async def state(self, config: Any) -> Any:
        return await asyncio.to_thread(self.graph.get_state, config)


@dataclass
class WaitingThread:
    name: str
    asker: GraphCaller

    @property
    def config(self) -> Any:
        return {"configurable": {"thread_id": self.name}}

    async def result(self) -> dict[str, Any]:
        while True:
            state = await self.asker.state(self.config)
            if not state.tasks:  # `next` is empty also between a node's end and the next step
                return dict(state.values["told"])
            await asyncio.sleep(0.05)

    async def stop_waiting(self) -> None:
        await self.asker.invoke({"name": self.name, "options": {"task": f"new input of {self.name}"}}, self.config)

    def route(self, key: str) -> Route:
        return Route("langgraph", {"thread_id": self.name}, key)
