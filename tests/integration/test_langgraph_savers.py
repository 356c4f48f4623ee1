"""One contract for every saver: asked once, answered once, and across a restart where the saver outlives one."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from awaithumans_adapters.langgraph import await_human_sync
from awaithumans_adapters.langgraph.foreign import key_of
from awaithumans_core import Outcome, TargetGone
from tests.support.bench import Bench, State
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay
from tests.support.workflows import Decision

Opens = Callable[[], AbstractAsyncContextManager[Any]]
SYNC = (SqliteSaver, PostgresSaver)
"""Savers without async methods: their graphs have sync nodes."""


class SaverBench(Bench):
    """The same graph on any saver, of sync nodes where the saver is sync: `ask`, then `act`, which counts."""

    @property
    def is_sync(self) -> bool:
        return isinstance(self.saver, SYNC)

    def build(self) -> None:
        builder = StateGraph(State)
        builder.add_node("ask", self._ask_sync if self.is_sync else self._ask)
        builder.add_node("act", self.act)
        builder.add_edge(START, "ask")
        builder.add_edge("ask", "act")
        builder.add_edge("act", END)
        self.use(builder)

    async def start(self) -> None:
        if self.is_sync:
            await asyncio.to_thread(self.compiled.invoke, {"answers": []}, self.config)
        else:
            await self.compiled.ainvoke({"answers": []}, self.config)

    async def state(self) -> Any:
        if self.is_sync:
            return await asyncio.to_thread(self.compiled.get_state, self.config)
        return await self.compiled.aget_state(self.config)

    async def _ask(self, state: State) -> State:
        first, second = await self.ask("first"), await self.ask("second")
        return {"answers": [("first", first.approved), ("second", second.approved)]}

    def _ask_sync(self, state: State) -> State:
        return {"answers": [(name, self._one(name)) for name in ("first", "second")]}

    def _one(self, name: str) -> bool:
        decision: Decision = await_human_sync(
            task=f"{name} {self.thread_id}", response_schema=Decision, human_tasks=self.human_tasks
        )
        return decision.approved


@pytest.fixture(params=["memory", "sqlite", "sqlite-async", "postgres", "postgres-async"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    """Opens the saver, each time anew on the same database; the one in memory is the same each time."""
    name: str = request.param
    if name == "memory":
        kept = InMemorySaver()
    elif name.startswith("sqlite"):
        database = str(tmp_path / "checkpoints.db")
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        database = postgres.database()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Any]:
        if name == "memory":
            yield kept
        elif name == "sqlite":
            with SqliteSaver.from_conn_string(database) as saver:
                yield saver
        elif name == "sqlite-async":
            async with AsyncSqliteSaver.from_conn_string(database) as saver_:
                yield saver_
        elif name == "postgres":
            with PostgresSaver.from_conn_string(database) as pg:
                pg.setup()
                yield pg
        else:
            async with AsyncPostgresSaver.from_conn_string(database) as pg_:
                await pg_.setup()
                yield pg_

    return opened


@pytest.fixture
async def bench(opens: Opens, registrar: RunningRelay, people: People) -> AsyncGenerator[SaverBench]:
    async with opens() as saver:
        bench = SaverBench(saver, registrar.human_tasks(), people)
        bench.build()
        yield bench


async def test_answered_once(bench: SaverBench) -> None:
    """Two questions of one node, each delivered twice: each answer is taken once, and what follows is done once."""
    await bench.start()
    for question, approved in [("first", True), ("second", False)]:
        await bench.give(question, approved)
        await bench.give(question, approved)
    state = await bench.state()
    assert [tuple(answer) for answer in state.values["answers"]] == [("first", True), ("second", False)]
    assert bench.acts == ["act"]


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
async def test_a_foreign_question_answered_once(bench: SaverBench, *, fails: bool) -> None:
    """A node that does not know us takes its answer once, whether it ends or fails; the saver is free then."""
    taken: list[str] = []

    def asks(state: State) -> State:
        taken.append(interrupt("Which?"))
        if fails:
            raise ZeroDivisionError
        return {}

    builder = StateGraph(State)
    builder.add_node("asks", asks)
    builder.add_edge(START, "asks")
    builder.add_edge("asks", END)
    bench.use(builder)
    await bench.start()
    (shown,) = (await bench.state()).interrupts
    key = key_of(shown, bench.thread_id)
    outcome = Outcome(task_id="t", status="completed", idempotency_key=key, response={"answer": "blue"})
    async with asyncio.timeout(60):
        for _ in range(2):
            with pytest.raises(TargetGone, match="ZeroDivisionError") if fails else nullcontext():
                await bench.engine.deliver(bench.route_of(key), outcome)
        assert await bench.engine.orphaned(bench.route_of(key)) is not None
    assert taken == ["blue"]
    assert (await bench.state()).interrupts == ((shown,) if fails else ())


async def test_superseded(bench: SaverBench) -> None:
    """New input replaces the question; the answer to the old one does not reach the new one."""
    await bench.start()
    old = await bench.task("first")
    await bench.start()
    with pytest.raises(TargetGone, match="moved on"):
        await bench.deliver(old["idempotency_key"], approved=True, task_id=old["id"])
    assert (await bench.state()).next == ("ask",)
    assert bench.acts == []


async def test_after_a_restart(opens: Opens, registrar: RunningRelay, people: People) -> None:
    """Another saver and another graph on the same database take the answers."""
    async with opens() as saver:
        asked = SaverBench(saver, registrar.human_tasks(), people)
        asked.build()
        await asked.start()
    async with AsyncExitStack() as open_until_the_end:
        for question in ("first", "second"):
            saver = await open_until_the_end.enter_async_context(opens())
            again = SaverBench(saver, registrar.human_tasks(), people)
            again.thread_id, again.config = asked.thread_id, asked.config
            again.build()
            await again.give(question, True)
        assert again.acts == ["act"]
        assert (await again.state()).next == ()
