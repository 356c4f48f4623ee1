"""One contract for every saver: asked once, answered once, and across a restart if the saver persists."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of
from awaithumans_core import Outcome, TargetGone
from tests.support.graph_bench import State
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay
from tests.support.savers import SAVERS, Opens, SaverBench, opener


@pytest.fixture(params=SAVERS)
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    """Return a function that opens the saver on the same database each time; the in-memory one stays the same."""
    name: str = request.param
    if not name.startswith("postgres"):
        return opener(name, str(tmp_path / "checkpoints.db"))
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return opener(name, postgres.database())


@pytest.fixture
async def bench(opens: Opens, registrar: RunningRelay, people: People) -> AsyncGenerator[SaverBench]:
    async with opens() as saver:
        bench = SaverBench(saver, registrar.human_tasks(), people)
        bench.build()
        yield bench


async def test_each_answer_is_taken_once(bench: SaverBench) -> None:
    """Two questions of one node, each delivered twice, are answered once, and the next node runs once."""
    await bench.start()
    for question, approved in [("first", True), ("second", False)]:
        await bench.give(question, approved)
        await bench.give(question, approved)
    state = await bench.state()
    assert [tuple(answer) for answer in state.values["answers"]] == [("first", True), ("second", False)]
    assert bench.acts == ["act"]


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
async def test_foreign_question_is_answered_once(bench: SaverBench, *, fails: bool) -> None:
    """An unmodified node takes its answer once, whether it ends or fails, and the saver is free afterwards."""
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


async def test_answer_to_a_superseded_question_is_not_taken(bench: SaverBench) -> None:
    """New input replaces the question, and the old answer does not reach the new one."""
    await bench.start()
    old = await bench.task("first")
    await bench.start()
    with pytest.raises(TargetGone, match="moved on"):
        await bench.deliver(old["idempotency_key"], approved=True, task_id=old["id"])
    assert (await bench.state()).next == ("ask",)
    assert bench.acts == []


async def test_answers_are_taken_after_a_restart(opens: Opens, registrar: RunningRelay, people: People) -> None:
    """A new saver and graph on the same database take the answers."""
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
