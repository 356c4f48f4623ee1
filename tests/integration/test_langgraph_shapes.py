"""Every shape of graph: each question gets its own answer, and the nodes after it run once."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

from awaithumans_adapters.langgraph import await_human_sync
from awaithumans_core import HumanTasks, Outcome, Route, TargetGone, TargetNotReady
from tests.support.graph_bench import Bench, State
from tests.support.people import People
from tests.support.workflows import Decision


def asks(bench: Bench, name: str) -> Callable[[Any], Any]:
    """Return a node with one question."""

    async def node(state: State) -> State:
        return {"answers": [(name, (await bench.ask(name)).approved)]}

    return node


# --- in sequence and in parallel


async def test_branches_get_their_own_answers(bench: Bench) -> None:
    """Three branches wait at once, and answers in another order each reach their own branch."""

    bench.graph(a=asks(bench, "a"), b=asks(bench, "b"), c=asks(bench, "c"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for name, approved in [("c", True), ("a", False), ("b", True)]:
        await bench.give(name, approved)
    assert await bench.answers() == {("a", False), ("b", True), ("c", True)}
    assert bench.acts == ["act"]


async def test_second_question_of_a_node_is_asked_after_the_first_answer(bench: Bench) -> None:
    """A duplicate of the first answer does not answer the second question."""

    async def node(state: State) -> State:
        first = await bench.ask("first")
        second = await bench.ask("second")
        return {"answers": [("first", first.approved), ("second", second.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("first", True)
    await bench.give("first", True)
    assert bench.acts == []
    await bench.give("second", False)
    await bench.give("second", False)
    assert await bench.answers() == {("first", True), ("second", False)}
    assert bench.acts == ["act"]


async def test_node_in_a_loop_asks_a_new_question_each_round(bench: Bench) -> None:
    """The same node in a loop asks a new question in every round."""

    async def node(state: State) -> Any:
        decision = await bench.ask(f"round {state['round']}")
        if decision.approved:
            return {"answers": [("last", True)]}
        return Command(goto="node", update={"round": state["round"] + 1})

    builder = StateGraph(State)
    builder.add_node("node", node, destinations=("node", END))
    builder.add_edge(START, "node")
    bench.use(builder)
    await bench.compiled.ainvoke({"answers": [], "round": 1}, bench.config)
    for round_, approved in [(1, False), (2, False), (3, True)]:
        await bench.give(f"round {round_}", approved)
    assert await bench.answers() == {("last", True)}


class SlowFor(HumanTasks):
    """Delay one of the questions, so that another one is asked and shown before it."""

    def __init__(self, asker: HumanTasks, word: str) -> None:
        super().__init__(asker.settings)
        self._word = word
        self._another = asyncio.Event()

    async def open(self, body: Any, route: Route, **options: Any) -> Outcome:
        if self._word not in body["task"]:
            outcome = await super().open(body, route, **options)
            self._another.set()
            return outcome
        await self._another.wait()
        await asyncio.sleep(0.3)
        return await super().open(body, route, **options)


async def test_gathered_questions_of_one_node_get_their_own_answers(bench: Bench) -> None:
    """Both parallel questions of one node get their answers, whichever is shown first."""

    async def node(state: State) -> State:
        a, b = await asyncio.gather(bench.ask("a"), bench.ask("b"))
        return {"answers": [("a", a.approved), ("b", b.approved)]}

    bench.human_tasks = SlowFor(bench.human_tasks, "a ")
    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("b", True)
    await bench.give("a", False)
    assert await bench.answers() == {("a", False), ("b", True)}
    assert bench.acts == ["act"]


async def test_interrupt_after_gathered_answers_gets_its_own_answer(bench: Bench) -> None:
    """A later `interrupt()` of the node gets its own answer, although the gathered ones came out of order."""

    async def node(state: State) -> State:
        a, b = await asyncio.gather(bench.ask("a"), bench.ask("b"))
        return {"answers": [("a", a.approved), ("b", b.approved), ("later", interrupt("later"))]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("b", True)
    await bench.give("a", False)
    (shown,) = (await bench.compiled.aget_state(bench.config)).interrupts
    await bench.compiled.ainvoke(Command(resume={shown.id: True}), bench.config)
    assert await bench.answers() == {("a", False), ("b", True), ("later", True)}


@pytest.mark.edges
async def test_error_handler_may_ask_after_an_answer(bench: Bench) -> None:
    """A node fails with its answer and its error handler asks again; both answers are taken once."""
    runs: list[str] = []

    async def fails(state: State) -> State:
        await bench.ask("a")
        runs.append("run")
        raise ValueError("after the answer")

    async def handler(state: State) -> State:
        return {"answers": [("handler", (await bench.ask("b")).approved)]}

    bench.use(StateGraph(State).add_node("fails", fails, error_handler=handler).add_edge(START, "fails"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for question in ("a", "a", "b", "b", "a"):
        await bench.give(question, True)
    assert await bench.answers() == {("handler", True)}
    assert runs == ["run"]


async def test_gathered_answers_are_taken_in_any_order(bench: Bench) -> None:
    """The answer to a question that is not shown is delivered at once to that question."""

    async def node(state: State) -> State:
        a, b = await asyncio.gather(bench.ask("a"), bench.ask("b"))
        return {"answers": [("a", a.approved), ("b", b.approved)]}

    bench.human_tasks = SlowFor(bench.human_tasks, "a ")
    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for _ in range(2):
        await bench.give("a", False)
        assert bench.acts == []
        assert await bench.engine.orphaned(await bench.route("b")) is None
    await bench.give("b", True)
    assert await bench.answers() == {("a", False), ("b", True)}
    assert bench.acts == ["act"]


async def test_fan_out_items_get_their_own_answers(bench: Bench) -> None:
    """Twenty items sent to one node ask twenty questions, each answered for its own item in any order."""
    items = {f"item-{number:02}": number % 3 == 0 for number in range(20)}

    async def node(state: Any) -> State:
        decision = await bench.ask(state["item"])
        bench.acts.append(state["item"])
        return {"answers": [(state["item"], decision.approved)]}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_conditional_edges(START, lambda _: [Send("node", {"item": item}) for item in items], ["node"])
    bench.use(builder)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for item in random.sample(list(items), len(items)):
        await bench.give(item, items[item])
    assert await bench.answers() == set(items.items())
    assert sorted(bench.acts) == sorted(items)


# --- graphs in graphs


class SeparateState(TypedDict, total=False):
    """A state that shares nothing with the graph around it."""

    name: str
    approved: bool


def apart(bench: Bench, **options: Any) -> Any:
    async def inner(state: SeparateState) -> SeparateState:
        return {"approved": (await bench.ask(state["name"])).approved}

    builder = StateGraph(SeparateState)
    builder.add_node("inner", inner)
    builder.add_edge(START, "inner")
    return builder.compile(**options)


def around(*nodes: Any) -> Any:
    """Return a graph that runs these nodes in sequence, on the bench's own state."""
    builder = StateGraph(State)
    builder.add_sequence(nodes)
    builder.add_edge(START, nodes[0][0])
    return builder.compile()


async def test_subgraphs_as_nodes_ask_at_depth_two(bench: Bench) -> None:
    """Nested subgraphs ask with the state of the graph around them."""
    bench.graph(sub=around(("mid", around(("inner", asks(bench, "inner"))))))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("inner", True)
    await bench.give("inner", True)
    assert await bench.answers() == {("inner", True)}
    assert bench.acts == ["act"]


async def test_subgraphs_called_in_nodes_keep_their_answers_apart(bench: Bench) -> None:
    """Nested subgraphs with their own state get their own answers, also two in parallel."""
    inner = apart(bench)

    async def call(state: SeparateState) -> SeparateState:
        done = await inner.ainvoke({"name": state["name"]})
        return {"approved": done["approved"]}

    builder = StateGraph(SeparateState)
    builder.add_node("call", call)
    builder.add_edge(START, "call")
    outer = builder.compile()

    def calls(name: str) -> Any:
        async def node(state: State) -> State:
            return {"answers": [(name, (await outer.ainvoke({"name": name}))["approved"])]}

        return node

    bench.graph(left=calls("left"), right=calls("right"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("right", True)
    await bench.give("left", False)
    assert await bench.answers() == {("left", False), ("right", True)}
    assert bench.acts == ["act"]


async def test_subgraph_with_its_own_memory_gets_an_answer_in_each_run(bench: Bench) -> None:
    """Its checkpoint namespace is the same in every run, and each run still finds its own question."""
    inner = apart(bench, checkpointer=True)

    async def node(state: State) -> State:
        return {"answers": [("inner", (await inner.ainvoke({"name": "inner"}))["approved"])]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = await bench.route("inner")
    assert await bench.engine.orphaned(old) is None
    await bench.give("inner", True)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.deliver(old.idempotency_key, approved=True)
    assert bench.acts == ["act"]
    await bench.give("inner", False)
    assert await bench.answers() == {("inner", True), ("inner", False)}
    assert bench.acts == ["act", "act"]


async def test_subgraph_called_twice_in_a_node_asks_twice(bench: Bench) -> None:
    """The second call asks its own question."""
    inner = apart(bench)

    async def node(state: State) -> State:
        first = await inner.ainvoke({"name": "first"})
        second = await inner.ainvoke({"name": "second"})
        return {"answers": [("first", first["approved"]), ("second", second["approved"])]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("first", True)
    await bench.give("first", True)
    assert bench.acts == []
    await bench.give("second", False)
    assert await bench.answers() == {("first", True), ("second", False)}
    assert bench.acts == ["act"]


async def test_node_that_fails_after_its_subgraphs_answer_is_not_run_again(bench: Bench) -> None:
    """The answer belongs to the subgraph, and a second delivery does not rerun the node, which may have acted."""
    outer = [apart(bench)]  # in a list, where LangGraph does not find the subgraph and so shows no state of it

    async def node(state: State) -> State:
        await outer[0].ainvoke({"name": "inner"})
        bench.acts.append("charge")
        raise ZeroDivisionError

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for _ in range(2):
        with pytest.raises(TargetGone, match="node 'node' failed"):
            await bench.give("inner", True)
    assert bench.acts == ["charge"]


async def test_subgraphs_gathered_in_a_node_are_answered_one_by_one(bench: Bench) -> None:
    """The node shows one question at a time, and the answer to the other waits until it is shown."""
    inner = apart(bench)

    async def node(state: State) -> State:
        left, right = await asyncio.gather(inner.ainvoke({"name": "left"}), inner.ainvoke({"name": "right"}))
        return {"answers": [("left", left["approved"]), ("right", right["approved"])]}

    bench.human_tasks = SlowFor(bench.human_tasks, "right ")
    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(TargetNotReady):
        await bench.give("right", False)
    await bench.give("left", True)
    await bench.give("right", False)
    assert await bench.answers() == {("left", True), ("right", False)}
    assert bench.acts == ["act"]


# --- agents


class Scripted(FakeMessagesListChatModel):
    """A model with scripted replies that accepts tools."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


async def test_parallel_tool_calls_of_an_agent_get_their_own_answers(bench: Bench) -> None:
    """An agent calls a tool twice at once, and each call asks and acts on its own answer."""

    async def refund(order: str) -> str:
        """Pay the money back."""
        decision = await bench.ask(order)
        bench.acts.append(order)
        return f"{order}: {decision.approved}"

    calls = [{"name": "refund", "args": {"order": order}, "id": order} for order in ("first", "second")]
    model = Scripted(responses=[AIMessage("", tool_calls=calls), AIMessage("done")])
    bench.run(create_agent(model, [refund], checkpointer=bench.saver))
    await bench.compiled.ainvoke({"messages": [("user", "refund both")]}, bench.config)
    await bench.give("second", True)
    await bench.give("first", False)
    messages = (await bench.compiled.aget_state(bench.config)).values["messages"]
    assert [m.content for m in messages if isinstance(m, ToolMessage)] == ["first: False", "second: True"]
    assert messages[-1].content == "done"
    assert sorted(bench.acts) == ["first", "second"]


# --- the functional API


async def test_entrypoint_asks_twice_and_runs_its_task_once(bench: Bench) -> None:
    """Two questions in an entrypoint with a task between them that runs once."""

    @task
    async def pay(amount: int) -> int:
        bench.acts.append("paid")
        return amount

    @entrypoint(checkpointer=bench.saver)
    async def refund(amount: int) -> list[bool]:
        first = await bench.ask("first")
        await pay(amount)
        second = await bench.ask("second")
        return [first.approved, second.approved]

    bench.run(refund)
    await refund.ainvoke(250, bench.config)
    await bench.give("first", True)
    await bench.give("second", False)
    assert (await refund.aget_state(bench.config)).values == [True, False]
    assert bench.acts == ["paid"]


async def test_questions_inside_parallel_tasks_get_their_own_answers(bench: Bench) -> None:
    """Two parallel tasks each ask, and the rest of the entrypoint runs once."""

    @task
    async def review(name: str) -> bool:
        decision = await bench.ask(name)
        bench.acts.append(name)
        return decision.approved

    @entrypoint(checkpointer=bench.saver)
    async def refund(names: list[str]) -> list[bool]:
        return await asyncio.gather(*(review(name) for name in names))

    bench.run(refund)
    await refund.ainvoke(["left", "right"], bench.config)
    await bench.give("right", True)
    await bench.give("left", False)
    assert (await refund.aget_state(bench.config)).values == [False, True]
    assert sorted(bench.acts) == ["left", "right"]


# --- callers


async def test_sync_node_in_an_async_graph_asks(bench: Bench) -> None:
    """LangGraph runs the node in a thread, where it asks with `await_human_sync`."""

    def node(state: State) -> State:
        decision = await_human_sync(
            task=f"sync {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks
        )
        return {"answers": [("sync", decision.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("sync", True)
    assert await bench.answers() == {("sync", True)}
    assert bench.acts == ["act"]


@pytest.mark.parametrize("mode", ["updates", "values", "messages", "debug"])
async def test_streaming_caller_sees_the_question_and_its_link(bench: Bench, mode: str) -> None:
    """The stream ends at the question with the review link, and the relay runs the rest."""
    bench.graph(node=asks(bench, "a"))
    modes = list({mode, "updates"})
    seen = [part async for _, part in bench.compiled.astream({"answers": []}, bench.config, stream_mode=modes)]
    shown = next(part["__interrupt__"] for part in seen if "__interrupt__" in part)
    assert shown[0].value["task"] == f"a {bench.thread_id}"
    assert shown[0].value["task_id"] in shown[0].value["review_url"]
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}
    assert bench.acts == ["act"]


# --- retries and forks


def retried(node: Any) -> Any:
    builder = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.01, jitter=False, retry_on=ConnectionError)
    builder.add_node("node", node, retry_policy=policy)
    builder.add_edge(START, "node")
    return builder


async def test_node_retried_before_its_question_asks_once(bench: Bench) -> None:
    """A node with a retry policy that fails after a task of its own asks once."""
    stumbles = ["once"]

    @task
    async def look_up() -> None: ...

    async def node(state: State) -> State:
        await look_up()
        if stumbles:
            stumbles.pop()
            raise ConnectionError
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.use(retried(node))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}


async def test_node_retried_after_its_answer_asks_nothing_again(bench: Bench) -> None:
    """A node with a retry policy that fails after its answer is retried with that answer."""
    stumbles = ["between", "after"]

    def stumble(where: str) -> None:
        if where in stumbles:
            stumbles.remove(where)
            raise ConnectionError

    async def node(state: State) -> State:
        first = await bench.ask("first")
        stumble("between")
        second = await bench.ask("second")
        stumble("after")
        bench.acts.append("charge")
        return {"answers": [("first", first.approved), ("second", second.approved)]}

    bench.use(retried(node))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for question, approved in [("first", True), ("second", False)]:
        await bench.people.complete((await bench.task(question))["id"], {"approved": approved})
        await bench.give(question, approved)
        await bench.give(question, approved)
    assert await bench.answers() == {("first", True), ("second", False)}
    assert bench.acts == ["charge"]
    assert stumbles == []


@pytest.mark.parametrize("answered", [False, True], ids=["open", "answered"])
@pytest.mark.parametrize("way", ["update", "replay"])
async def test_fork_from_before_the_question_asks_anew(bench: Bench, people: People, way: str, answered: bool) -> None:  # noqa: FBT001
    """Neither the forked question nor the original takes the other's answer."""
    bench.graph(node=asks(bench, "a"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = await bench.task("a")
    if answered:
        await bench.give("a", True)
    history = [s async for s in bench.compiled.aget_state_history(bench.config) if s.next == ("node",)]
    fork = history[0].config
    if way == "update":
        fork = await bench.compiled.aupdate_state(fork, {"round": 1})
    await bench.compiled.ainvoke(None, fork)
    tasks = await people.find(f"a {bench.thread_id}", count=2)
    (new,) = [each for each in tasks if each["id"] != old["id"]]
    assert new["idempotency_key"] != old["idempotency_key"]
    if answered:
        await bench.deliver(old["idempotency_key"], approved=True)
    else:
        with pytest.raises(TargetGone, match="moved on"):
            await bench.deliver(old["idempotency_key"], approved=True)
    assert (await bench.compiled.aget_state(bench.config)).next == ("node",)
    await bench.deliver(new["idempotency_key"], approved=False)
    assert await bench.answers() == {("a", False)}
    assert bench.acts == (["act", "act"] if answered else ["act"])
