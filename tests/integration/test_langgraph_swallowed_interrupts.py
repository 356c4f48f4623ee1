"""Nodes that swallow the interrupt of `await_human`, and calls whose interrupt would not reach LangGraph."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, await_human, await_human_sync
from awaithumans_adapters.langgraph.delivery.rules import CONTINUED
from awaithumans_core import AwaitHumansError, SettingsError, TargetGone
from tests.support.graph_bench import Bench, State
from tests.support.workflows import Decision

pytestmark = pytest.mark.edges

Asks = Callable[[], Any]


async def _except(ask: Asks) -> bool:
    try:
        return bool((await ask()).approved)
    except Exception:
        return True


async def _fallback(ask: Asks) -> bool:
    async def approved(_: Any) -> bool:
        return bool((await ask()).approved)

    return bool(await RunnableLambda(approved).with_fallbacks([RunnableLambda(lambda _: True)]).ainvoke({}))


async def _gather(ask: Asks) -> bool:
    (answer,) = await asyncio.gather(ask(), return_exceptions=True)
    return bool(getattr(answer, "approved", True))


SWALLOWS = {"except Exception": _except, "with_fallbacks": _fallback, "return_exceptions": _gather}


@pytest.fixture(params=list(SWALLOWS.values()), ids=list(SWALLOWS))
def swallows(request: pytest.FixtureRequest) -> Any:
    return request.param


def _asks_and_swallows(bench: Bench, swallows: Any, question: str = "a", **options: Any) -> Any:
    async def node(state: State) -> State:
        def ask() -> Any:
            return await_human(
                task=f"{question} {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks, **options
            )

        return {"answers": [(question, await swallows(ask))]}

    return node


async def _assert_continued(bench: Bench, question: str = "a") -> None:
    assert await bench.engine.orphaned(await bench.route(question)) == CONTINUED
    with pytest.raises(TargetGone) as gone:
        await bench.give(question, True)
    assert gone.value.text == CONTINUED


async def test_swallowed_question_is_orphaned_and_its_answer_parked(bench: Bench, swallows: Any) -> None:
    """A node that continues without its answer leaves an orphaned wait, and a late answer is parked."""
    bench.graph(node=_asks_and_swallows(bench, swallows))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    assert bench.acts == ["act"]
    await _assert_continued(bench)
    assert bench.acts == ["act"]


async def test_swallowed_question_with_a_shared_key_is_orphaned(bench: Bench) -> None:
    """A key chosen by the caller does not hide that the node continued."""
    bench.graph(node=_asks_and_swallows(bench, _except, idempotency_key=f"shared {bench.thread_id}"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await _assert_continued(bench)


async def test_swallowed_question_beside_a_waiting_one_is_orphaned(bench: Bench) -> None:
    """Its task is cancelled while another node of the step waits, whose answer is delivered."""

    async def waits(state: State) -> State:
        return {"answers": [("b", (await bench.ask("b")).approved)]}

    bench.graph(swallows=_asks_and_swallows(bench, _except), waits=waits)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await _assert_continued(bench)
    assert await bench.engine.orphaned(await bench.route("b")) is None
    await bench.give("b", False)
    assert await bench.answers() == {("a", True), ("b", False)}
    await _assert_continued(bench)


async def test_swallowed_question_in_a_subgraph_is_orphaned(bench: Bench) -> None:
    """It is recognised while the subgraph waits and after its end."""

    async def waits(state: State) -> State:
        return {"answers": [("b", (await bench.ask("b")).approved)]}

    inner = StateGraph(State)
    inner.add_sequence([("swallows", _asks_and_swallows(bench, _except)), ("waits", waits)])
    inner.add_edge(START, "swallows")
    inner.add_edge("waits", END)
    bench.graph(sub=inner.compile())
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await _assert_continued(bench)
    await bench.give("b", True)
    await _assert_continued(bench)


async def test_hidden_question_replaced_by_new_input_is_orphaned(bench: Bench) -> None:
    """A gathered question that was never shown has no caller once new input replaced its step."""

    async def node(state: State) -> State:
        a, b = await asyncio.gather(bench.ask("a"), bench.ask("b"))
        return {"answers": [("a", a.approved), ("b", b.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = [await bench.route(question) for question in "ab"]
    assert [await bench.engine.orphaned(route) for route in old] == [None, None]
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    assert ["moved on" in (await bench.engine.orphaned(route) or "") for route in old] == [True, True]
    with pytest.raises(TargetGone, match="moved on"):
        await bench.deliver(old[1].idempotency_key, approved=True)


async def test_swallowed_question_in_a_sync_node_is_orphaned(bench: Bench, database: Path) -> None:
    """Sync nodes and savers without async methods behave as async ones do."""

    def node(state: State) -> State:
        try:
            approved = await_human_sync(
                task=f"a {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks
            ).approved
        except Exception:
            approved = True
        return {"answers": [("a", approved)]}

    with SqliteSaver.from_conn_string(str(database.with_name("sync.db"))) as saver:
        bench.saver = saver
        bench.graph(node=node)
        await asyncio.to_thread(bench.compiled.invoke, {"answers": []}, bench.config)
        await _assert_continued(bench)


async def test_node_that_catches_only_our_errors_gets_its_answer(bench: Bench) -> None:
    """A node that catches only the errors of `await_human` still waits and gets its answer."""

    async def caught(ask: Asks) -> bool:
        try:
            return bool((await ask()).approved)
        except AwaitHumansError:
            return False

    bench.graph(node=_asks_and_swallows(bench, caught))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    assert await bench.engine.orphaned(await bench.route("a")) is None
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}


async def test_question_not_needed_after_the_first_answer_is_orphaned(bench: Bench) -> None:
    """A node that continues with the first of two answers has not taken the other, although it was shown."""

    async def node(state: State) -> State:
        asked = await asyncio.gather(bench.ask("a"), bench.ask("b"), return_exceptions=True)
        answers = [each for each in asked if not isinstance(each, BaseException)]
        if not answers:
            raise next(each for each in asked if isinstance(each, BaseException))
        return {"answers": [("first", answers[0].approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    assert await bench.engine.orphaned(await bench.route("a")) is None
    await bench.give("b", True)
    assert await bench.answers() == {("first", True)}
    await _assert_continued(bench)
    await bench.give("b", True)
    assert bench.acts == ["act"]


async def test_question_replaced_by_an_error_handler_is_not_taken(bench: Bench) -> None:
    """A node that fails when it runs again, and whose error handler continues, has not taken its answer."""
    runs: list[str] = []

    async def fails(state: State) -> State:
        runs.append("run")
        if len(runs) > 1:
            raise ValueError("the node cannot run again")
        await bench.ask("a")
        return {}

    async def waits(state: State) -> State:
        return {"answers": [("b", (await bench.ask("b")).approved)]}

    builder = StateGraph(State)
    builder.add_node("fails", fails, error_handler=lambda state: {"answers": [("handled", True)]})
    builder.add_node("waits", waits)
    builder.add_edge(START, "fails")
    builder.add_edge(START, "waits")
    bench.use(builder)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("b", True)
    assert await bench.answers() == {("handled", True), ("b", True)}
    await _assert_continued(bench)


# --- calls that are refused before a person is asked


async def _in_asyncio_group(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.ask("a"))


async def _in_anyio_group(bench: Bench) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(bench.ask, "a")


async def _sync_in_async(bench: Bench) -> None:
    await_human_sync(task=f"a {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks)


REFUSED = {
    "asyncio.TaskGroup": (_in_asyncio_group, "use asyncio.gather"),
    "anyio task group": (_in_anyio_group, "use asyncio.gather"),
    "await_human_sync in an async node": (_sync_in_async, "await await_human"),
}


@pytest.mark.parametrize(("asks", "names"), REFUSED.values(), ids=REFUSED.keys())
async def test_call_that_cannot_interrupt_is_refused(bench: Bench, asks: Any, names: str) -> None:
    """A call whose interrupt would not reach LangGraph raises `SettingsError` and creates no task."""

    async def node(state: State) -> State:
        await asks(bench)
        return {}

    bench.graph(node=node)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - a task group wraps it
        await bench.compiled.ainvoke({"answers": []}, bench.config)
    error = raised.value.exceptions[0] if isinstance(raised.value, ExceptionGroup) else raised.value
    assert isinstance(error, SettingsError)
    assert names in str(error)
    assert await bench.people.find(f"a {bench.thread_id}", count=0) == []


@pytest.mark.parametrize("run", ["sync", "async"])
async def test_await_human_in_a_sync_node_is_refused(bench: Bench, database: Path, run: str) -> None:
    """`asyncio.run(await_human(...))` in a sync node raises `SettingsError` and creates no task."""

    def node(state: State) -> State:
        asyncio.run(bench.ask("a"))
        return {}

    with SqliteSaver.from_conn_string(str(database.with_name("sync.db"))) as saver:
        bench.saver = saver if run == "sync" else bench.saver
        bench.graph(node=node)
        invoked = (
            asyncio.to_thread(bench.compiled.invoke, {"answers": []}, bench.config)
            if run == "sync"
            else bench.compiled.ainvoke({"answers": []}, bench.config)
        )
        with pytest.raises(SettingsError, match="call await_human_sync in sync nodes"):
            await invoked
    assert await bench.people.find(f"a {bench.thread_id}", count=0) == []


async def test_sync_run_beside_an_event_loop_gets_its_answer(bench: Bench, database: Path) -> None:
    """In a notebook `graph.invoke` runs while an event loop runs, and its sync node asks."""

    def node(state: State) -> State:
        answer = await_human_sync(task=f"a {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks)
        return {"answers": [("a", answer.approved)]}

    with SqliteSaver.from_conn_string(str(database.with_name("sync.db"))) as saver:
        bench.saver = saver
        bench.graph(node=node)

        async def cell() -> None:
            bench.compiled.invoke({"answers": []}, bench.config)

        await asyncio.to_thread(asyncio.run, cell())
        bench.engine = GraphEngine({"bench": bench.compiled})
        await bench.give("a", True)
        assert [tuple(each) for each in bench.compiled.get_state(bench.config).values["answers"]] == [("a", True)]
