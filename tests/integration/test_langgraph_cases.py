"""For each case of a question, the state of a real thread that produces it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from devservers import free_port
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from awaithumans_adapters.langgraph import GraphEngine, HumanInterrupts, await_human
from awaithumans_adapters.langgraph.delivery.classification import Case, Snapshot, read_case
from awaithumans_adapters.langgraph.delivery.rules import Action, rule_of
from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of
from awaithumans_core import (
    HumanTasks,
    Outcome,
    Route,
    ServerUnreachableError,
    TargetBusy,
    TargetGone,
    TargetNotReady,
    quorum,
)
from awaithumans_core.runs import RunsInMemory
from tests.support.graph_bench import Bench, State
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.workflows import Decision

AT_ONCE = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=ConnectionError)


class Faulty:
    """Mixed into a saver: while `refuses` is set, it does not store the questions of the outermost graph."""

    refuses = False

    async def aput_writes(self, config: Any, writes: Any, *more: Any) -> None:
        outermost = not config["configurable"].get("checkpoint_ns")
        if self.refuses and outermost and any(channel == "__interrupt__" for channel, _ in writes):
            raise OSError("no space left on device")
        await super().aput_writes(config, writes, *more)  # type: ignore[misc]


class FaultyMemorySaver(Faulty, InMemorySaver): ...


class FaultySqliteSaver(Faulty, AsyncSqliteSaver): ...


@asynccontextmanager
async def memory(_: Path) -> AsyncGenerator[Any]:
    yield FaultyMemorySaver()


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncGenerator[Any]:
    async with FaultySqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        yield saver


@pytest.fixture(params=[memory, sqlite], ids=["memory", "sqlite"])
async def bench(
    request: pytest.FixtureRequest, registrar: RunningRelay, people: People, tmp_path: Path
) -> AsyncGenerator[Bench]:
    async with request.param(tmp_path) as saver:
        bench = Bench(saver, registrar.human_tasks(), people)
        bench.store = registrar.store
        yield bench


@dataclass(frozen=True)
class Prepared:
    """A thread in the state of an example."""

    route: Route
    redriven: bool = False
    answer_known: bool = True
    run: asyncio.Task[None] | None = None
    """A run of the application that is still active."""


Prepare = Callable[[Bench], Coroutine[Any, Any, Prepared]]
EXAMPLES: defaultdict[Case, list[Prepare]] = defaultdict(list)
ON_A_SERVER = {Case.RUN_ACTIVE, Case.HIDDEN, Case.LOST}
"""Cases that only a LangGraph server has; tests/integration/test_langgraph_server.py has their examples."""


def example(case: Case) -> Callable[[Prepare], Prepare]:
    def add(prepare: Prepare) -> Prepare:
        EXAMPLES[case].append(prepare)
        return prepare

    return add


def asks(bench: Bench, name: str = "a") -> Any:
    async def node(state: State) -> State:
        return {"answers": [(name, (await bench.ask(name)).approved)]}

    return node


def asks_and_fails(bench: Bench, name: str = "a") -> Any:
    async def node(state: State) -> State:
        await bench.ask(name)
        raise ConnectionError("the shop is unreachable")

    return node


async def started(bench: Bench) -> None:
    await bench.compiled.ainvoke({"answers": []}, bench.config)


async def store_answer(bench: Bench, name: str = "a") -> None:
    """Store the answer in the thread, as a relay does that is killed before it runs the node."""
    task = await bench.task(name)
    saved = await bench.saver.aget_tuple(bench.config)
    task_id = next(
        each
        for each, channel, value in saved.pending_writes
        if channel == "__interrupt__" and value[0].value["task_id"] == task["id"]
    )
    outcome = {
        "task_id": task["id"],
        "idempotency_key": task["idempotency_key"],
        "status": "completed",
        "response": {"approved": True},
    }
    await bench.saver.aput_writes(saved.config, [("__resume__", [outcome])], task_id)


async def keep_latest(bench: Bench) -> None:
    """Remove all but the latest checkpoint of the outermost graph, as a retention job does."""
    saver, thread_id = bench.saver, bench.thread_id
    if isinstance(saver, InMemorySaver):
        checkpoints = saver.storage[thread_id][""]
        for old in sorted(checkpoints)[:-1]:
            del checkpoints[old]
            saver.writes.pop((thread_id, "", old), None)
        return
    latest = (await saver.aget_tuple(bench.config)).config["configurable"]["checkpoint_id"]
    await saver.conn.execute("DELETE FROM checkpoints WHERE thread_id = ? AND checkpoint_id < ?", (thread_id, latest))
    await saver.conn.execute("DELETE FROM writes WHERE thread_id = ? AND checkpoint_id < ?", (thread_id, latest))
    await saver.conn.commit()


# --- The thread shows the question ------------------------------------------------------------------------------------


@example(Case.PENDING)
async def one_question(bench: Bench) -> Prepared:
    bench.graph(node=asks(bench))
    await started(bench)
    return Prepared(await bench.route("a"))


@example(Case.PENDING)
async def question_in_a_subgraph(bench: Bench) -> Prepared:
    bench.graph(sub=StateGraph(State).add_node("ask", asks(bench)).add_edge(START, "ask").compile())
    await started(bench)
    return Prepared(await bench.route("a"))


@example(Case.PENDING)
async def question_gathered_with_the_one_that_is_shown(bench: Bench) -> Prepared:
    async def node(state: State) -> State:
        a, b = await asyncio.gather(bench.ask("a"), bench.ask("b"))
        return {"answers": [("a", a.approved), ("b", b.approved)]}

    bench.graph(node=node)
    await started(bench)
    (shown,) = (await bench.compiled.aget_state(bench.config)).interrupts
    hidden = "b" if shown.value["task"].startswith("a ") else "a"
    return Prepared(await bench.route(hidden))


@example(Case.AMBIGUOUS)
async def equal_graphs_on_one_saver(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    bench.engine = GraphEngine({"one": bench.compiled, "other": bench.compiled})
    return prepared


@example(Case.RUNNING_BESIDE)
async def branch_that_runs(bench: Bench) -> Prepared:
    async def slow(state: State) -> State:
        await asyncio.sleep(60)
        return {}

    bench.graph(node=asks(bench), slow=slow)
    run = asyncio.create_task(started(bench))
    await bench.task("a")
    async with asyncio.timeout(10):
        while not (await bench.compiled.aget_state(bench.config)).interrupts:
            await asyncio.sleep(0.02)
    return Prepared(await bench.route("a"), run=run)


@example(Case.FAILED_BESIDE)
async def branch_that_failed_with_its_answer(bench: Bench) -> Prepared:
    bench.graph(node=asks(bench), fails=asks_and_fails(bench, "b"))
    await started(bench)
    with pytest.raises(TargetGone):
        await bench.give("b", True)
    return Prepared(await bench.route("a"))


@example(Case.UNSTORED_BESIDE)
async def branch_that_was_cut_off_with_its_answer(bench: Bench) -> Prepared:
    bench.graph(node=asks(bench), beside=asks(bench, "b"))
    await started(bench)
    await store_answer(bench, "b")
    return Prepared(await bench.route("a"))


# --- The thread has taken the answer ----------------------------------------------------------------------------------


@example(Case.ANSWERED)
async def answered_question(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    await bench.give("a", True)
    return prepared


@example(Case.ANSWERED)
async def answered_question_whose_checkpoint_was_removed(bench: Bench) -> Prepared:
    prepared = await answered_question(bench)
    await keep_latest(bench)
    return prepared


@example(Case.CUT_OFF)
async def run_that_was_cut_off(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    await store_answer(bench)
    return prepared


@example(Case.FAILED)
async def node_that_failed(bench: Bench) -> Prepared:
    bench.graph(node=asks_and_fails(bench))
    await started(bench)
    with pytest.raises(TargetGone):
        await bench.give("a", True)
    return Prepared(await bench.route("a"))


@example(Case.FAILED_REDRIVEN)
async def node_that_failed_and_is_redriven(bench: Bench) -> Prepared:
    return Prepared((await node_that_failed(bench)).route, redriven=True)


@example(Case.FAILED_MAY_RETRY)
async def node_that_failed_with_a_retry_policy(bench: Bench) -> Prepared:
    builder = StateGraph(State).add_node("node", asks_and_fails(bench)).add_edge(START, "node")
    bench.use(builder, retry=AT_ONCE)
    await started(bench)
    with pytest.raises(TargetNotReady, match="after try 1 of 3"):
        await bench.give("a", True)
    return Prepared(await bench.route("a"))


async def _next_question_could_not_be_asked(bench: Bench, builder: Any) -> Prepared:
    nowhere = bench.human_tasks.settings.model_copy(update={"url": f"http://127.0.0.1:{free_port()}"})
    people = HumanInterrupts(human_tasks=HumanTasks(nowhere, patience=0.2))
    bench.use(builder, config=lambda _, thread_id: {"configurable": {"thread_id": thread_id}, "callbacks": [people]})
    await started(bench)
    with pytest.raises(ServerUnreachableError):
        await bench.give("a", True)
    return Prepared(await bench.route("a"))


@example(Case.NEXT_UNASKED)
async def callback_that_failed_at_the_interrupt_of_the_next_node(bench: Bench) -> Prepared:
    def then(state: State) -> State:
        return {"round": interrupt("and?")}

    builder = StateGraph(State).add_sequence([("node", asks(bench)), ("then", then)])
    return await _next_question_could_not_be_asked(bench, builder.add_edge(START, "node"))


@example(Case.NEXT_UNASKED_IN_STEP)
async def callback_that_failed_at_the_next_interrupt_of_the_node(bench: Bench) -> Prepared:
    async def node(state: State) -> State:
        await bench.ask("a")
        return {"round": interrupt("and?")}

    return await _next_question_could_not_be_asked(
        bench, StateGraph(State).add_node("node", node).add_edge(START, "node")
    )


@example(Case.RESUMED_BY_APPLICATION)
async def interrupt_that_the_application_resumed(bench: Bench) -> Prepared:
    bench.graph(node=lambda _: {"round": interrupt("how often?")})
    await started(bench)
    (shown,) = (await bench.compiled.aget_state(bench.config)).interrupts
    await bench.compiled.ainvoke(Command(resume=3), bench.config)
    return Prepared(bench.route_of(key_of(shown, bench.thread_id)), answer_known=False)


# --- The thread neither shows the question nor has its answer ---------------------------------------------------------


@example(Case.QUEUED)
async def subgraph_behind_another_one(bench: Bench) -> Prepared:
    async def inner(state: State) -> State:
        return {"answers": [("inner", (await bench.ask(str(state["round"]))).approved)]}

    subgraph = StateGraph(State).add_node("ask", inner).add_edge(START, "ask").compile()

    async def node(state: State) -> State:
        runs = [asyncio.ensure_future(subgraph.ainvoke({"answers": [], "round": number})) for number in (1, 2)]
        await asyncio.wait(runs)  # both questions are stored, and the first one is shown
        return {"answers": [answer for run in runs for answer in run.result()["answers"]]}

    bench.graph(node=node)
    await started(bench)
    return Prepared(await bench.route("2"))


@example(Case.BEHIND_ANSWERED)
async def question_behind_one_that_a_fork_replaced(bench: Bench) -> Prepared:
    inner = StateGraph(State).add_sequence([("first", asks(bench, "first")), ("second", asks(bench, "second"))])
    bench.graph(sub=inner.add_edge(START, "first").compile())
    await started(bench)
    await bench.give("first", True)
    (around,) = (await bench.compiled.aget_state(bench.config, subgraphs=True)).tasks
    await bench.compiled.aupdate_state(around.state.config, {"answers": []}, as_node="first")
    bench.saver.refuses = True
    with pytest.raises(OSError, match="no space"):
        await bench.compiled.ainvoke(None, bench.config)
    bench.saver.refuses = False
    return Prepared(await bench.route("second"))


@example(Case.OTHER_RELEASE)
async def node_that_was_renamed(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    bench.graph(renamed=asks(bench))
    return prepared


@example(Case.SUPERSEDED)
async def question_that_new_input_replaced(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    await started(bench)
    return prepared


@example(Case.UPDATED)
async def question_whose_step_was_updated(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    await bench.compiled.aupdate_state(bench.config, {"round": 1})
    return prepared


@example(Case.CONTINUED)
async def node_that_swallowed_its_question(bench: Bench) -> Prepared:
    async def node(state: State) -> State:
        with suppress(Exception):
            await bench.ask("a")
        return {}

    bench.graph(node=node)
    await started(bench)
    return Prepared(await bench.route("a"))


@example(Case.DECIDED)
async def quorum_that_decided(bench: Bench) -> Prepared:
    async def ask(*, assign_to: Any, **options: Any) -> Any:
        return await await_human(
            task=f"{assign_to} {bench.thread_id}",
            response_schema=Decision,
            human_tasks=bench.human_tasks,
            assign_to=assign_to,
            **options,
        )

    async def node(state: State) -> State:
        people = ["a@x.org", "b@x.org"]
        verdict = await quorum(1, people, ask, yes=lambda answer: answer.approved, count_unnamed=True)
        return {"answers": [("quorum", verdict.reached)]}

    bench.graph(node=node)
    await started(bench)
    await bench.give("b@x.org", True)
    return Prepared(await bench.route("a@x.org"))


@example(Case.REMOVED)
async def replaced_question_whose_checkpoint_was_removed(bench: Bench) -> Prepared:
    prepared = await question_that_new_input_replaced(bench)
    await keep_latest(bench)
    return prepared


@example(Case.DELETED)
async def deleted_thread(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    assert await bench.engine.orphaned(prepared.route) is None
    await bench.saver.adelete_thread(bench.thread_id)
    assert await bench.engine.orphaned(prepared.route) is None
    return prepared


@example(Case.NOT_YET)
async def thread_that_is_not_stored(bench: Bench) -> Prepared:
    bench.graph(node=asks(bench))
    return Prepared(bench.route_of("unknown"))


@example(Case.NOT_YET)
async def question_that_is_not_stored(bench: Bench) -> Prepared:
    prepared = await one_question(bench)
    return Prepared(bench.route_of(f"{prepared.route.idempotency_key}0"))


ALL = [(case, prepare) for case, examples in EXAMPLES.items() for prepare in examples]


def test_every_case_has_an_example() -> None:
    """A case that no thread produces is unproven, or does not exist."""
    assert set(EXAMPLES) | ON_A_SERVER == set(Case)
    on_a_server = Path(__file__).with_name("test_langgraph_server.py").read_text()
    assert all(f"def test_{case.name.lower()}_is_the_case_of_" in on_a_server for case in ON_A_SERVER)


async def case_of(engine: GraphEngine, prepared: Prepared) -> Case:
    """Read a thread as a delivery does, and return its case."""
    deliveries = engine._deliveries
    facts = deliveries._facts(prepared.route)
    known = deliveries._unread_snapshot(prepared.route, RunsInMemory(), redriven=prepared.redriven, run_ended=False)
    with facts.cached():
        case, _ = await read_case(
            facts, known if prepared.answer_known else Snapshot(answer_known=False), prepared.route.idempotency_key
        )
    return case


ENDS_WITH: dict[Action, type[Exception]] = {
    Action.TRY_LATER: TargetNotReady,
    Action.TRY_LATER_BUSY: TargetBusy,
    Action.PARK: TargetGone,
    Action.PARK_NOT_TAKEN: TargetGone,
    Action.PARK_FAILED: TargetGone,
}


@pytest.mark.parametrize(("case", "prepare"), ALL, ids=[f"{case.name}-{each.__name__}" for case, each in ALL])
async def test_thread_is_classified(bench: Bench, case: Case, prepare: Prepare) -> None:
    """A delivery, and the check for orphans, do what the rule for the case says."""
    prepared = await prepare(bench)
    assert await case_of(bench.engine, prepared) is case
    rule = rule_of(case)
    open_wait = await case_of(bench.engine, replace(prepared, answer_known=False))
    assert (await bench.engine.orphaned(prepared.route) is not None) == rule_of(open_wait).orphaned
    outcome = Outcome.model_validate(
        {
            "task_id": "t",
            "idempotency_key": prepared.route.idempotency_key,
            "status": "completed",
            "response": {"approved": True},
        }
    )
    deliver = bench.engine.redrive if prepared.redriven else bench.engine.deliver
    if rule.action in ENDS_WITH:
        with pytest.raises(ENDS_WITH[rule.action]) as ended:
            await deliver(prepared.route, outcome)
        assert type(ended.value) is ENDS_WITH[rule.action]
    elif rule.action in (Action.RESUME, Action.FINISH):
        for _ in range(2):
            await deliver(prepared.route, outcome)
        if prepared.answer_known:
            assert await case_of(bench.engine, prepared) is Case.ANSWERED
    if prepared.run is not None:
        prepared.run.cancel()
        await asyncio.gather(prepared.run, return_exceptions=True)
