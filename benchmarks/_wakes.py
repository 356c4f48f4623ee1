"""How fast those who wait are woken: by hand, by an engine, by a dispatcher from its store, by the official adapter.

Each side has workflows or threads of its own, parked before the clock runs.
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
from awaithumans.adapters.temporal import dispatch_signal  # type: ignore[import-untyped]  # the same
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
from benchmarks._callbacks import Answer, answer_for
from benchmarks._workflows_bare import JustWait

AT_ONCE = 64
"""Signals; threads are resumed one after the other, as in a loop."""
BARE, ENGINE, DISPATCHER, OFFICIAL = "bare", "engine", "dispatcher", "official"
BARE_SYNC = "bare, durability sync"
SAME_GRAPH_SYNC = "the engine's graph, durability sync"
"""A loop around the graph that the engine runs, so that the difference is the engine alone."""
SIDES = [BARE, ENGINE, DISPATCHER, OFFICIAL]
RESUMES = [BARE, BARE_SYNC, SAME_GRAPH_SYNC, ENGINE, DISPATCHER, OFFICIAL]


class Decision(BaseModel):
    approved: bool
    note: str | None = None


class State(TypedDict):
    subject: str
    approved: NotRequired[bool]


def outcome(answer: Answer) -> Outcome:
    return Outcome.model_validate_json(answer.body)


async def timed(wakes: Sequence[Callable[[], Awaitable[Any]]], at_once: int) -> float:
    """Wakes a second."""
    waiting = iter(wakes)

    async def wake_in_turn() -> None:
        for wake in waiting:
            await wake()

    began = time.perf_counter()
    await asyncio.gather(*(wake_in_turn() for _ in range(at_once)))
    return len(wakes) / (time.perf_counter() - began)


class Counted:
    """An engine, and how many of its wakes are still to come: looking into the store for that would slow them down."""

    def __init__(self, engine: Engine, count: int) -> None:
        self.name, self._engine, self._left = engine.name, engine, count
        self.all_woken = asyncio.Event()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        await self._engine.deliver(route, outcome)
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self.all_woken.set()


class CountedRuns(Counted):
    """A counted engine that records the runs it starts."""

    def __init__(self, engine: GraphEngine, count: int) -> None:
        super().__init__(engine, count)
        self._runs = engine

    async def deliver_recorded(self, route: Route, outcome: Outcome, runs: RunRecord, *, redriven: bool) -> None:
        await self._runs.deliver_recorded(route, outcome, runs, redriven=redriven)
        self._count()


async def dispatched(engine: Engine, answers: Sequence[Answer], folder: Path) -> float:
    """Wakes a second, of waits that are answered and stored when the dispatcher starts, until that is written down."""
    store = Store(f"sqlite:///{folder / f'{uuid.uuid4().hex}.db'}")
    await store.start()
    try:
        await asyncio.gather(*(store.answer(outcome(each), found_by="callback", route=each.route) for each in answers))
        many = len(answers)
        counted = CountedRuns(engine, many) if isinstance(engine, GraphEngine) else Counted(engine, many)
        await asyncio.sleep(2 * CALM_SECONDS)  # a dispatcher gives way to acknowledgements, and these were the last
        began = time.perf_counter()
        async with Dispatcher(store, {engine.name: counted}).running():
            await counted.all_woken.wait()
            while (await store.counts()).get("delivered", 0) < len(answers):
                await asyncio.sleep(0.01)
            return len(answers) / (time.perf_counter() - began)
    finally:
        await store.stop()


# --- Temporal ---------------------------------------------------------------------------------------------------------


async def workflows(client: Client, count: int) -> list[str]:
    """Ids of workflows that have just started."""
    ids = [f"order-{uuid.uuid4().hex}" for _ in range(count)]
    starts = [partial(client.start_workflow, JustWait.run, 1, id=each, task_queue="nobody") for each in ids]
    await timed(starts, AT_ONCE)
    return ids


async def signals(side: str, client: Client, count: int, payload_key: str, folder: Path) -> float:
    """Workflows woken a second; no worker runs, so the server does nothing but take the signals."""
    ids = await workflows(client, count)
    routes = [
        Route("temporal", {"namespace": "default", "workflow_id": each}, f"temporal:default:{each}") for each in ids
    ]
    answers = [answer_for(route, payload_key) for route in routes]
    engine = TemporalEngine(client)
    if side == DISPATCHER:
        return await dispatched(engine, answers, folder)

    async def wake(answer: Answer) -> None:
        workflow_id = answer.route.target["workflow_id"]
        if side == BARE:
            await client.get_workflow_handle(workflow_id).signal("answer", outcome(answer).value())
        elif side == ENGINE:
            await engine.deliver(answer.route, outcome(answer))
        else:
            signature = answer.headers[SIGNATURE_HEADER]
            await dispatch_signal(
                temporal_client=client, workflow_id=workflow_id, body=answer.body, signature_header=signature
            )

    return await timed([partial(wake, each) for each in answers], AT_ONCE)


# --- LangGraph --------------------------------------------------------------------------------------------------------


def sqlite_saver(folder: Path) -> AbstractAsyncContextManager[BaseCheckpointSaver[Any]]:
    return AsyncSqliteSaver.from_conn_string(str(folder / "threads.db"))


@asynccontextmanager
async def postgres_saver(database: str) -> AsyncGenerator[BaseCheckpointSaver[Any]]:
    async with AsyncPostgresSaver.from_conn_string(database) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def graphs(
    settings: Settings, url: str, token: str, saver: AbstractAsyncContextManager[BaseCheckpointSaver[Any]]
) -> AsyncGenerator[dict[str, Any]]:
    """A graph of each side, on one saver."""
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

        mine = compiled(ours)
        bare = compiled(by_hand)
        yield {
            BARE: bare,
            BARE_SYNC: bare,
            SAME_GRAPH_SYNC: mine,
            ENGINE: mine,
            DISPATCHER: mine,
            OFFICIAL: compiled(official),
        }


async def parked(graph: Any, count: int, payload_key: str) -> dict[str, Answer]:
    """Threads that wait, each with its answer."""
    answers: dict[str, Answer] = {}
    for thread in (uuid.uuid4().hex for _ in range(count)):
        shown = (await graph.ainvoke({"subject": f"Approve {thread}?"}, _config(thread)))["__interrupt__"][0].value
        key = shown["idempotency_key"] if isinstance(shown, dict) else thread
        answers[thread] = answer_for(Route("langgraph", {"thread_id": thread}, key), payload_key)
    return answers


async def resumes(
    side: str, graph: Any, count: int, payload_key: str, folder: Path, at_rest: Callable[[], Awaitable[None]]
) -> float:
    """Threads resumed a second. `at_rest` is to have nobody look after those that wait meanwhile."""
    answers = await parked(graph, count, payload_key)
    await at_rest()
    engine = GraphEngine({"bench": graph})
    if side == DISPATCHER:
        return await dispatched(engine, list(answers.values()), folder)

    async def wake(thread: str) -> None:
        answer = answers[thread]
        if side == BARE:
            await graph.ainvoke(Command(resume=outcome(answer).value()), _config(thread))
        elif side in (BARE_SYNC, SAME_GRAPH_SYNC):
            await graph.ainvoke(Command(resume=outcome(answer).value()), _config(thread), durability="sync")
        elif side == ENGINE:
            await engine.deliver(answer.route, outcome(answer))
        else:
            signature = answer.headers[SIGNATURE_HEADER]
            await official_graphs.dispatch_resume(
                graph=graph, thread_id=thread, body=answer.body, signature_header=signature
            )

    rate = await timed([partial(wake, each) for each in answers], 1)
    for thread in answers:
        assert (await graph.aget_state(_config(thread))).values["approved"] is True
    return rate


def _config(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}
