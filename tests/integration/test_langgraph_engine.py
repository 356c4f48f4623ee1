"""`GraphEngine`: owner of a thread, reports to the application, failures after the answer, and orphaned questions."""

import asyncio
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, interrupt
from pydantic import BaseModel, model_validator

from awaithumans_adapters.langgraph import GraphEngine, Resumed, await_human_sync
from awaithumans_adapters.langgraph.delivery.rules import UPDATED
from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of
from awaithumans_core import Outcome, SettingsError, TargetBusy, TargetGone, TargetNotReady
from tests.support.graph_bench import Bench, State
from tests.support.graphs import ask_then_act
from tests.support.workflows import Decision

AT_ONCE = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=ConnectionError)


def one_node(node: Any, act: Any) -> Any:
    return ask_then_act(node, act, state=State, asker="node")


def _asks(bench: Bench) -> Any:
    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    return node


async def test_graph_id_selects_among_equal_graphs_on_one_saver(bench: Bench) -> None:
    """`graph_id` in the config names the thread's graph, and the next question carries it as well."""
    ran: list[str] = []

    def node(name: str) -> Any:
        async def asks(state: State) -> State:
            ran.append(name)
            first, second = await bench.ask("a"), await bench.ask("b")
            return {"answers": [("a", first.approved), ("b", second.approved)]}

        return asks

    bench.graph(asks=node("claims"))
    claims = bench.compiled
    bench.graph(asks=node("refunds"))
    bench.engine = GraphEngine({"claims": claims, "refunds": bench.compiled})
    bench.config["configurable"]["graph_id"] = "refunds"
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for question in ("a", "b"):
        assert (await bench.route(question)).target["graph_id"] == "refunds"
        await bench.give(question, True)
    assert set(ran) == {"refunds"}
    assert bench.acts == ["act"]


async def test_answer_for_an_unknown_graph_is_kept(bench: Bench) -> None:
    """An answer for a graph of another release is kept until a relay has that graph."""
    bench.graph(asks=lambda _: {})
    bench.config["configurable"]["graph_id"] = "tomorrow"
    with pytest.raises(TargetNotReady, match="'tomorrow'; it has: bench"):
        await bench.deliver("k", approved=True)


async def test_on_result_reports_each_answer_and_the_threads_state(bench: Bench) -> None:
    """`on_result` reports what the thread waits for next, and its end."""
    told: list[Resumed] = []

    async def hear(resumed: Resumed) -> None:
        told.append(resumed)

    async def node(state: State) -> State:
        first, second = await bench.ask("a"), await bench.ask("b")
        return {"answers": [("a", first.approved), ("b", second.approved)]}

    bench.use(one_node(node, bench.act), on_result=hear)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("a", True)
    await bench.give("b", False)
    assert [(each.graph, each.thread_id) for each in told] == [("bench", bench.thread_id)] * 2
    assert [[shown.value["task"] for shown in each.interrupts] for each in told] == [[f"b {bench.thread_id}"], []]
    assert told[1].values["answers"] == [["a", True], ["b", False]]
    assert told[1].outcome.response == {"approved": False}


async def test_failed_on_result_is_called_again(bench: Bench) -> None:
    """A hook that raises is called again by the next delivery, and nothing else is repeated."""
    told: list[Resumed] = []

    async def hear(resumed: Resumed) -> None:
        told.append(resumed)
        if len(told) == 1:
            raise ConnectionError("the app is unreachable")

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.use(one_node(node, bench.act), on_result=hear)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(ConnectionError):
        await bench.give("a", True)
    await bench.give("a", True)
    assert [each.values["answers"] for each in told] == [[["a", True]]] * 2
    assert bench.acts == ["act"]


async def test_retry_policy_runs_a_failed_node_again(bench: Bench) -> None:
    """With a retry policy the node after the answer runs until it succeeds or the policy ends."""

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    async def act(state: State) -> State:
        bench.acts.append("try")
        if len(bench.acts) < 3:
            raise ConnectionError("the bank is unreachable")
        return {}

    bench.use(one_node(node, act), retry=AT_ONCE)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for attempt in (1, 2):
        with pytest.raises(TargetNotReady, match=rf"node 'act' failed .*after try {attempt} of 3"):
            await bench.give("a", True)
    await bench.give("a", True)
    await bench.give("a", True)
    assert bench.acts == ["try"] * 3
    assert (await bench.compiled.aget_state(bench.config)).next == ()


@pytest.mark.parametrize(("failure", "tries"), [(ConnectionError("away"), 3), (ZeroDivisionError("a bug"), 1)])
async def test_failure_beyond_the_retry_policy_is_kept(bench: Bench, failure: Exception, tries: int) -> None:
    """After the last attempt, and for an error that the policy does not name, the wait keeps the error."""

    async def node(state: State) -> State:
        await bench.ask("a")
        bench.acts.append("try")
        raise failure

    bench.use(one_node(node, bench.act), retry=AT_ONCE)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for _ in range(tries - 1):
        with pytest.raises(TargetNotReady):
            await bench.give("a", True)
    with pytest.raises(TargetGone, match=type(failure).__name__):
        await bench.give("a", True)
    assert bench.acts == ["try"] * tries


async def test_redrive_runs_a_failed_node_once(bench: Bench) -> None:
    """A delivery skips a failed node; an operator's redrive runs it once, and not again after success."""
    broken = [True]

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    async def act(state: State) -> State:
        bench.acts.append("act")
        if broken:
            raise ZeroDivisionError
        return {}

    bench.use(one_node(node, act))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for redriven, acts in [(False, 1), (False, 1), (True, 2)]:
        with pytest.raises(TargetGone, match="Fix it and redrive"):
            await bench.give("a", True, redriven=redriven)
        assert len(bench.acts) == acts
    broken.clear()
    for _ in range(2):
        await bench.give("a", True, redriven=True)
    assert len(bench.acts) == 3
    assert await bench.answers() == {("a", True)}


async def test_redrive_of_an_untaken_answer_resumes_the_thread(bench: Bench) -> None:
    """A wait parked before the thread took its answer is resumed normally."""
    bench.graph(node=_asks(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("a", True, redriven=True)
    assert bench.acts == ["act"]


async def test_typed_end_of_a_question_is_not_retried(bench: Bench) -> None:
    """A node that lets TaskTimeoutError pass fails once, since settling again gives the same error."""

    async def node(state: State) -> State:
        bench.acts.append("run")
        await bench.ask("a")
        return {}

    everything = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=Exception)
    bench.use(one_node(node, bench.act), retry=everything)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    task = await bench.task("a")
    with pytest.raises(TargetGone, match="TaskTimeoutError"):
        await bench.deliver(task["idempotency_key"], approved=None, task_id=task["id"])
    assert bench.acts == ["run", "run"]  # once up to its question, and once with the outcome


async def test_failed_sibling_delays_the_other_branchs_answer(bench: Bench) -> None:
    """A branch that failed with its answer would act twice if the step ran again, so the other answer waits."""
    broken = [True]

    async def a(state: State) -> State:
        await bench.ask("a")
        bench.acts.append("charge")
        if broken:
            raise ZeroDivisionError
        return {"answers": [("a", True)]}

    async def b(state: State) -> State:
        return {"answers": [("b", (await bench.ask("b")).approved)]}

    bench.graph(a=a, b=b)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(TargetGone):
        await bench.give("a", True)
    with pytest.raises(TargetNotReady, match="node 'a' failed"):
        await bench.give("b", True)
    assert bench.acts == ["charge"]
    broken.clear()
    await bench.give("a", True, redriven=True)
    await bench.give("b", True)
    assert bench.acts == ["charge", "charge", "act"]
    assert await bench.answers() == {("a", True), ("b", True)}


async def test_superseded_question_is_orphaned(bench: Bench) -> None:
    """New input orphans the old question; a new, an answered and an unknown question are not orphaned."""

    bench.graph(node=_asks(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = await bench.route("a")
    assert await bench.engine.orphaned(old) is None
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    new = await bench.route("a")
    assert "moved on" in (await bench.engine.orphaned(old) or "")
    assert await bench.engine.orphaned(new) is None
    await bench.deliver(new.idempotency_key, approved=True)
    assert await bench.engine.orphaned(new) is None
    assert await bench.engine.orphaned(bench.route_of("unheard-of")) is None


@pytest.mark.parametrize(("as_node", "next_node"), [(None, ("node",)), ("node", ("act",))])
async def test_update_state_supersedes_an_open_question(
    bench: Bench, as_node: str | None, next_node: tuple[str, ...]
) -> None:
    """`on_result` reports that the answer was not taken, with the thread's state."""
    told: list[Resumed] = []

    async def hear(resumed: Resumed) -> None:
        told.append(resumed)

    bench.use(one_node(_asks(bench), bench.act), on_result=hear)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = await bench.route("a")
    await bench.compiled.aupdate_state(bench.config, {"round": 1}, as_node=as_node)
    assert await bench.engine.orphaned(old) == UPDATED
    with pytest.raises(TargetGone, match="update_state has replaced"):
        await bench.deliver(old.idempotency_key, approved=True)
    (resumed,) = told
    assert (resumed.not_taken, resumed.next, resumed.interrupts, resumed.ended) == (UPDATED, next_node, (), False)
    assert resumed.outcome.response == {"approved": True}
    await bench.compiled.ainvoke(None, bench.config)
    if as_node is None:
        await bench.give("a", False)
        assert await bench.answers() == {("a", False)}
        assert told[-1].not_taken is None
    assert bench.acts == ["act"]


async def test_question_of_a_node_of_another_release_is_kept(bench: Bench) -> None:
    """A relay whose graph lacks the asking node abandons neither question nor answer."""

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    newer = bench.engine
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    bench.graph(renamed=node)
    assert await bench.engine.orphaned(await bench.route("a")) is None
    with pytest.raises(TargetNotReady, match="another release"):
        await bench.give("a", True)
    bench.engine = newer
    await bench.give("a", True)
    assert bench.acts == ["act"]


async def test_cancelled_delivery_waits_for_its_sync_node(bench: Bench, tmp_path: Path) -> None:
    """A thread cannot be cancelled, so a cancelled delivery ends when its sync node has, and no other run starts."""
    begun, ended = threading.Event(), list[str]()

    def node(state: State) -> State:
        question = f"a {bench.thread_id}"
        await_human_sync(task=question, response_schema=Decision, human_tasks=bench.human_tasks)
        begun.set()
        time.sleep(0.3)
        ended.append("node")
        return {}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    with SqliteSaver.from_conn_string(str(tmp_path / "sync.db")) as saver:
        graph: Any = builder.compile(checkpointer=saver)
        bench.engine = GraphEngine({"bench": graph})
        await asyncio.to_thread(graph.invoke, {"answers": []}, bench.config)
        delivery = asyncio.create_task(bench.give("a", True))
        await asyncio.to_thread(begun.wait)
        delivery.cancel()
        await asyncio.gather(delivery, return_exceptions=True)
        assert ended == ["node"]
        await bench.give("a", True)
        assert ended == ["node"]


async def test_questions_from_threads_of_one_node_are_refused(bench: Bench) -> None:
    """Sync tools that a ToolNode runs in threads ask in random order, so they are refused and nothing acts."""

    def pay(who: str) -> str:
        """Pay a bill."""
        question = f"{who} {bench.thread_id}"
        decision = await_human_sync(task=question, response_schema=Decision, human_tasks=bench.human_tasks)
        bench.acts.append(who)
        return f"{who}: {decision.approved}"

    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([pay], handle_tool_errors=False))
    builder.add_edge(START, "tools")
    bench.use(builder)
    calls: Any = [{"name": "pay", "id": who, "args": {"who": who}} for who in ("p1", "p2", "p3", "p4")]
    with pytest.raises(SettingsError, match="several threads of one node"):
        await bench.compiled.ainvoke({"messages": [AIMessage("", tool_calls=calls)]}, bench.config)
    assert bench.acts == []


async def test_failed_hook_does_not_rerun_what_the_application_runs(bench: Bench) -> None:
    """If the hook fails and the application resumes its own interrupt, the next delivery only calls the hook."""
    heard: list[str] = []

    async def hear(resumed: Resumed) -> None:
        heard.append(resumed.thread_id)
        if len(heard) == 1:
            raise ConnectionError("the app is unreachable")

    async def ours(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    def theirs(state: State) -> State:
        interrupt("and you?")
        return {}

    async def slow(state: State) -> State:
        bench.acts.append("charge")
        await asyncio.sleep(1)
        return {}

    builder = StateGraph(State)
    builder.add_node("ours", ours)
    builder.add_node("theirs", theirs)
    builder.add_node("slow", slow)
    for name in ("ours", "theirs"):
        builder.add_edge(START, name)
        builder.add_edge(name, "slow")
    bench.use(builder, on_result=hear)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(ConnectionError):
        await bench.give("a", True)
    (shown,) = (await bench.compiled.aget_state(bench.config)).interrupts
    app = asyncio.create_task(bench.compiled.ainvoke(Command(resume={shown.id: True}), bench.config))
    while not bench.acts:
        await asyncio.sleep(0.02)
    await bench.give("a", True)
    await app
    assert bench.acts == ["charge"]
    assert len(heard) == 2


@pytest.mark.parametrize("stop", ["before", "after"])
@pytest.mark.parametrize("nodes", [["pay"], "*"], ids=["named", "all"])
async def test_static_breakpoint_is_not_passed(bench: Bench, stop: str, nodes: list[str] | Literal["*"]) -> None:
    """`on_result` reports a thread paused there as not ended, and another delivery does not continue it."""
    results: list[Resumed] = []

    async def note(resumed: Resumed) -> None:
        results.append(resumed)

    def pay(state: State) -> State:
        bench.acts.append("pay")
        return {}

    builder = StateGraph(State)
    builder.add_node("node", _asks(bench))
    builder.add_node("pay", pay)
    builder.add_node("act", bench.act)
    builder.add_edge(START, "node")
    builder.add_edge("node", "pay")
    builder.add_edge("pay", "act")
    stops: dict[str, Any] = {"interrupt_before": nodes} if stop == "before" else {"interrupt_after": nodes}
    bench.run(builder.compile(checkpointer=bench.saver, **stops), on_result=note)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    if stop == "before" and nodes == "*":
        await bench.compiled.ainvoke(None, bench.config)
    waits_at = ("act",) if stop == "after" and nodes != "*" else ("pay",)
    acts = ["pay"] if waits_at == ("act",) else []
    await bench.give("a", True)
    for _ in range(2):  # as after a relay that was killed before it recorded the delivery
        bench.run(bench.compiled, on_result=note)
        await bench.give("a", True)
    assert [(each.next, each.interrupts, each.ended) for each in results] == [(waits_at, (), False)] * 3
    assert bench.acts == acts
    while (await bench.compiled.aget_state(bench.config)).next:
        await bench.compiled.ainvoke(None, bench.config)
    assert bench.acts == ["pay", "act"]


async def test_breakpoint_inside_a_subgraph_is_not_passed(bench: Bench) -> None:
    """A second delivery also stops at the breakpoints of a graph inside a node."""
    inner = StateGraph(State)
    inner.add_node("node", _asks(bench))
    inner.add_node("pay", bench.act)
    inner.add_edge(START, "node")
    inner.add_edge("node", "pay")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(interrupt_before=["pay"]))
    outer.add_edge(START, "inner")
    bench.use(outer)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for _ in range(3):
        bench.use(outer)
        await bench.give("a", True)
    assert bench.acts == []
    await bench.compiled.ainvoke(None, bench.config)
    assert bench.acts == ["act"]


async def test_answer_waits_for_a_running_branch_until_the_timeout(bench: Bench) -> None:
    """The owner of the graph sets how long a branch may run before it counts as interrupted."""

    async def slow(state: State) -> State:
        bench.acts.append("slow")
        if len(bench.acts) == 1:
            await asyncio.sleep(60)
        return {"answers": []}

    bench.graph(asks=_asks(bench), slow=slow)
    run = asyncio.create_task(bench.compiled.ainvoke({"answers": []}, bench.config))
    await bench.task("a")
    await asyncio.sleep(0.3)
    with pytest.raises(TargetBusy, match="slow still runs beside the question"):
        await bench.give("a", True)
    bench.engine = GraphEngine({"bench": bench.compiled}, running_timeout=timedelta(seconds=0.2))
    with pytest.raises(TargetBusy):
        await bench.give("a", True)
    await asyncio.sleep(0.3)
    await bench.give("a", True)
    assert bench.acts == ["slow", "slow", "act"]
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


@pytest.mark.parametrize("timeout", [0, -1.0, timedelta(0), float("nan")])
def test_a_running_timeout_must_be_positive(bench: Bench, timeout: float | timedelta) -> None:
    bench.graph(asks=_asks(bench))
    with pytest.raises(SettingsError, match="running_timeout"):
        GraphEngine({"bench": bench.compiled}, running_timeout=timeout)


async def test_answer_that_the_node_refuses_leaves_its_interrupt_pending(bench: Bench) -> None:
    """The wait is parked, the thread stores nothing, and the application can resume the interrupt."""

    class Choice(BaseModel):
        answer: str

        @model_validator(mode="after")
        def known(self) -> Self:
            if self.answer not in {"red", "blue"}:
                raise ValueError("an unknown colour")
            return self

    def node(state: State) -> State:
        choice = interrupt("Which colour?", response_schema=Choice)
        bench.acts.append(choice.answer)
        return {}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    bench.use(builder)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    before = await bench.compiled.aget_state(bench.config)
    (shown,) = before.interrupts
    key = key_of(shown, bench.thread_id)
    green = Outcome(task_id="t", status="completed", idempotency_key=key, response={"answer": "green"})
    for _ in range(2):
        with pytest.raises(TargetGone, match="does not take this answer"):
            await bench.engine.deliver(bench.route_of(key), green)
    after = await bench.compiled.aget_state(bench.config)
    assert (after.interrupts, after.next, after.values) == (before.interrupts, before.next, before.values)
    await bench.compiled.ainvoke(Command(resume={shown.id: {"answer": "blue"}}), bench.config)
    assert bench.acts == ["blue"]


async def test_node_that_fails_before_its_second_question_runs_once_more(bench: Bench) -> None:
    """After that its actions with the first answer are not repeated until an operator redrives."""
    failing = [False]

    async def node(state: State) -> State:
        first = await bench.ask("first")
        bench.acts.append("charge")
        if failing[0]:
            raise ConnectionError("the shop is unreachable")
        second = await bench.ask("second")
        return {"answers": [("first", first.approved), ("second", second.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("first", True)
    failing[0] = True
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await bench.give("second", False)
    with pytest.raises(TargetGone, match="run 2 times from the same position"):
        await bench.give("second", False)
    assert bench.acts == ["charge"] * 3
    failing[0] = False
    await bench.give("second", False, redriven=True)
    assert await bench.answers() == {("first", True), ("second", False)}


async def test_past_failure_does_not_block_the_next_answer(bench: Bench) -> None:
    """A redriven node asks a second question although the checkpoint still has its earlier failure."""
    failing = [True]

    async def node(state: State) -> State:
        first = await bench.ask("first")
        if failing:
            raise ConnectionError
        second = await bench.ask("second")
        return {"answers": [("first", first.approved), ("second", second.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(TargetGone, match="node 'node' failed"):
        await bench.give("first", True)
    failing.clear()
    await bench.give("first", True, redriven=True)
    await bench.give("second", False)
    assert await bench.answers() == {("first", True), ("second", False)}


async def test_node_that_failed_after_its_subgraph_is_not_delivered(bench: Bench) -> None:
    """Deliveries keep reporting the failure, and a redrive runs the node again."""
    failing = [True]
    inner = StateGraph(State)

    async def ask(state: State) -> State:
        return {"answers": [("q", (await bench.ask("q")).approved)]}

    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    subgraph = inner.compile()

    async def node(state: State) -> State:
        answers = (await subgraph.ainvoke({"answers": []}))["answers"]
        bench.acts.append("charge")
        if failing:
            raise ConnectionError
        return {"answers": answers}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for _ in range(2):
        with pytest.raises(TargetGone, match="node 'node' failed"):
            await bench.give("q", True)
    assert bench.acts == ["charge"]
    failing.clear()
    await bench.give("q", True, redriven=True)
    assert bench.acts == ["charge", "charge", "act"]


async def test_relay_stopped_in_a_task_leaves_no_failure(bench: Bench) -> None:
    """LangGraph stores the cancellation as the flow's error, and the next delivery continues the flow."""
    started, gate = asyncio.Event(), asyncio.Event()

    @task
    async def pays() -> None:
        bench.acts.append("pay")
        started.set()
        await gate.wait()

    @entrypoint(checkpointer=bench.saver)
    async def flow(name: str) -> bool:
        approved = (await bench.ask(name)).approved
        await pays()
        return approved

    bench.run(flow)
    await flow.ainvoke("q", bench.config)
    first = asyncio.create_task(bench.give("q", True))
    await asyncio.wait_for(started.wait(), 20)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await bench.give("q", True)
    assert (await flow.aget_state(bench.config)).values is True
    assert bench.acts == ["pay", "pay"]
