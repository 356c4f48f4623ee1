"""How many callers are woken per second: directly, by an engine, by the dispatcher, or by an official adapter.

Each side has its own workflows or threads, which wait before the measurement begins.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from awaithumans.adapters import langgraph as official_graphs  # type: ignore[import-untyped]  # it ships no types
from awaithumans.adapters.temporal import dispatch_signal  # type: ignore[import-untyped]  # it ships no types
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from temporalio.client import Client

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_core import Engine, HumanTasks, Outcome, Route, Settings
from awaithumans_core.runs import RunRecord
from awaithumans_core.signing import SIGNATURE_HEADER
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.store import Store
from awaithumans_relay.store.database.write_queue import CALM_SECONDS
from benchmarks._callbacks import Callback, callback_for
from benchmarks._workflows_bare import WaitForSignal

CONCURRENCY = 64
"""Number of concurrent signals. Threads are resumed one after the other, as in a loop."""
BARE, ENGINE, DISPATCHER, OFFICIAL = "bare", "engine", "dispatcher", "official"
BARE_SYNC = "bare, durability sync"
SAME_GRAPH_SYNC = "the engine's graph, durability sync"
"""A plain loop around the engine's graph, so that the difference is the cost of the engine."""
SIDES = [BARE, ENGINE, DISPATCHER, OFFICIAL]
RESUMES = [BARE, BARE_SYNC, SAME_GRAPH_SYNC, ENGINE, DISPATCHER, OFFICIAL]


class Decision(BaseModel):
    approved: bool
    note: str | None = None


class State(TypedDict):
    subject: str
    approved: NotRequired[bool]


def outcome(callback: Callback) -> Outcome:
    return Outcome.model_validate_json(callback.body)


async def wake_rate(wakes: Sequence[Callable[[], Awaitable[Any]]], concurrency: int) -> float:
    """Run the wakes with this concurrency and return how many completed per second."""
    remaining = iter(wakes)

    async def wake_one_by_one() -> None:
        for wake in remaining:
            await wake()

    began = time.perf_counter()
    await asyncio.gather(*(wake_one_by_one() for _ in range(concurrency)))
    return len(wakes) / (time.perf_counter() - began)


class CountingEngine:
    """Engine that counts its deliveries, because polling the store for the count would slow the dispatcher down."""

    def __init__(self, engine: Engine, count: int) -> None:
        self.name, self._engine, self._left = engine.name, engine, count
        self.all_delivered = asyncio.Event()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        await self._engine.deliver(route, outcome)
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self.all_delivered.set()


class CountingGraphEngine(CountingEngine):
    """Counting engine that records the runs it starts."""

    def __init__(self, engine: GraphEngine, count: int) -> None:
        super().__init__(engine, count)
        self._runs = engine

    async def deliver_recorded(self, route: Route, outcome: Outcome, runs: RunRecord, *, redriven: bool) -> None:
        await self._runs.deliver_recorded(route, outcome, runs, redriven=redriven)
        self._count()


async def dispatcher_rate(engine: Engine, callbacks: Sequence[Callback], folder: Path) -> float:
    """Return deliveries per second of answers that are stored already, until all are recorded as delivered."""
    store = Store(f"sqlite:///{folder / f'{uuid.uuid4().hex}.db'}")
    await store.start()
    try:
        await asyncio.gather(
            *(store.intake.answer(outcome(each), found_by="callback", route=each.route) for each in callbacks)
        )
        count = len(callbacks)
        counting = (
            CountingGraphEngine(engine, count) if isinstance(engine, GraphEngine) else CountingEngine(engine, count)
        )
        await asyncio.sleep(2 * CALM_SECONDS)  # the dispatcher yields to recent acknowledgements
        began = time.perf_counter()
        async with Dispatcher(store.leases, {engine.name: counting}).running():
            await counting.all_delivered.wait()
            while (await store.queries.counts()).get("delivered", 0) < len(callbacks):
                await asyncio.sleep(0.01)
            return len(callbacks) / (time.perf_counter() - began)
    finally:
        await store.stop()


# --- Temporal ---------------------------------------------------------------------------------------------------------


async def start_workflows(client: Client, count: int) -> list[str]:
    """Start workflows that wait for a signal and return their ids."""
    ids = [f"order-{uuid.uuid4().hex}" for _ in range(count)]
    starts = [partial(client.start_workflow, WaitForSignal.run, 1, id=each, task_queue="no-worker") for each in ids]
    await wake_rate(starts, CONCURRENCY)
    return ids


async def signal_rate(side: str, client: Client, count: int, payload_key: str, folder: Path) -> float:
    """Return signalled workflows per second. No worker runs, so the server only receives signals."""
    ids = await start_workflows(client, count)
    routes = [
        Route("temporal", {"namespace": "default", "workflow_id": each}, f"temporal:default:{each}") for each in ids
    ]
    callbacks = [callback_for(route, payload_key) for route in routes]
    engine = TemporalEngine(client)
    if side == DISPATCHER:
        return await dispatcher_rate(engine, callbacks, folder)

    async def wake(callback: Callback) -> None:
        workflow_id = callback.route.target["workflow_id"]
        if side == BARE:
            await client.get_workflow_handle(workflow_id).signal("answer", outcome(callback).value())
        elif side == ENGINE:
            await engine.deliver(callback.route, outcome(callback))
        else:
            signature = callback.headers[SIGNATURE_HEADER]
            await dispatch_signal(
                temporal_client=client, workflow_id=workflow_id, body=callback.body, signature_header=signature
            )

    return await wake_rate([partial(wake, each) for each in callbacks], CONCURRENCY)


# --- LangGraph --------------------------------------------------------------------------------------------------------


def sqlite_saver(folder: Path) -> AbstractAsyncContextManager[BaseCheckpointSaver[Any]]:
    return AsyncSqliteSaver.from_conn_string(str(folder / "threads.db"))


@asynccontextmanager
async def postgres_saver(database: str) -> AsyncGenerator[BaseCheckpointSaver[Any]]:
    async with AsyncPostgresSaver.from_conn_string(database) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def compiled_graphs(
    settings: Settings, url: str, token: str, saver: AbstractAsyncContextManager[BaseCheckpointSaver[Any]]
) -> AsyncGenerator[dict[str, Any]]:
    """Compile the graph of each side with the same checkpointer."""
    human_tasks = HumanTasks(settings)
    async with saver as checkpointer:

        async def by_hand(state: State) -> Any:
            return {"approved": interrupt(state["subject"])["response"]["approved"]}

        async def ours(state: State) -> Any:
            decision = await await_human(task=state["subject"], response_schema=Decision, human_tasks=human_tasks)
            return {"approved": decision.approved}

        async def official(state: State) -> Any:
            decision = await official_graphs.await_human(
                task=state["subject"],
                payload_schema=Decision,
                payload=Decision(approved=True),
                response_schema=Decision,
                timeout_seconds=900,
                callback_url="http://127.0.0.1:9/callback",
                server_url=url,
                api_key=token,
                idempotency_key=state["subject"],
            )
            return {"approved": decision.approved}

        def act(state: State) -> Any:
            return {}

        def compiled(ask: Any) -> Any:
            builder = StateGraph(State)
            builder.add_node("ask", ask)
            builder.add_node("act", act)
            builder.add_edge(START, "ask")
            builder.add_edge("ask", "act")
            builder.add_edge("act", END)
            return builder.compile(checkpointer=checkpointer)

        ours_compiled = compiled(ours)
        bare = compiled(by_hand)
        yield {
            BARE: bare,
            BARE_SYNC: bare,
            SAME_GRAPH_SYNC: ours_compiled,
            ENGINE: ours_compiled,
            DISPATCHER: ours_compiled,
            OFFICIAL: compiled(official),
        }


async def interrupt_threads(graph: Any, count: int, payload_key: str) -> dict[str, Callback]:
    """Start threads that wait for an answer, and return the callback for each."""
    callbacks: dict[str, Callback] = {}
    for thread in (uuid.uuid4().hex for _ in range(count)):
        value = (await graph.ainvoke({"subject": f"Approve {thread}?"}, _config(thread)))["__interrupt__"][0].value
        key = value["idempotency_key"] if isinstance(value, dict) else thread
        callbacks[thread] = callback_for(Route("langgraph", {"thread_id": thread}, key), payload_key)
    return callbacks


async def resume_rate(
    side: str, graph: Any, count: int, payload_key: str, folder: Path, postpone_checks: Callable[[], Awaitable[None]]
) -> float:
    """Return resumed threads per second. `postpone_checks` stops the relay from sweeping the waits meanwhile."""
    callbacks = await interrupt_threads(graph, count, payload_key)
    await postpone_checks()
    engine = GraphEngine({"bench": graph})
    if side == DISPATCHER:
        return await dispatcher_rate(engine, list(callbacks.values()), folder)

    async def wake(thread: str) -> None:
        callback = callbacks[thread]
        if side == BARE:
            await graph.ainvoke(Command(resume=outcome(callback).value()), _config(thread))
        elif side in (BARE_SYNC, SAME_GRAPH_SYNC):
            await graph.ainvoke(Command(resume=outcome(callback).value()), _config(thread), durability="sync")
        elif side == ENGINE:
            await engine.deliver(callback.route, outcome(callback))
        else:
            signature = callback.headers[SIGNATURE_HEADER]
            await official_graphs.dispatch_resume(
                graph=graph, thread_id=thread, body=callback.body, signature_header=signature
            )

    rate = await wake_rate([partial(wake, each) for each in callbacks], 1)
    for thread in callbacks:
        assert (await graph.aget_state(_config(thread))).values["approved"] is True
    return rate


def _config(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}
