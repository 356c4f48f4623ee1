"""Every shape of graph: whoever asks gets their own answer, and what follows it is done once."""

from collections.abc import Callable
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from tests.support.bench import Bench, State


async def test_branches_get_their_own_answers(bench: Bench) -> None:
    """Three branches wait at once; answers given in another order land each on its own."""

    def branch(name: str) -> Callable[[State], Any]:
        async def node(state: State) -> State:
            return {"answers": [(name, (await bench.ask(name)).approved)]}

        return node

    bench.graph(a=branch("a"), b=branch("b"), c=branch("c"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for name, approved in [("c", True), ("a", False), ("b", True)]:
        await bench.give(name, approved)
    assert await bench.answers() == {("a", False), ("b", True), ("c", True)}
    assert bench.acts == ["act"]


async def test_two_questions_in_one_node(bench: Bench) -> None:
    """The second question is asked after the first answer, and a duplicate of the first does not answer it."""

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
    assert await bench.answers() == {("first", True), ("second", False)}
    assert bench.acts == ["act"]


async def test_subgraph(bench: Bench) -> None:
    """A question inside a subgraph is found and answered there."""

    async def inner(state: State) -> State:
        return {"answers": [("inner", (await bench.ask("inner")).approved)]}

    builder = StateGraph(State)
    builder.add_node("inner", inner)
    builder.add_edge(START, "inner")
    bench.graph(sub=builder.compile())
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("inner", True)
    await bench.give("inner", True)
    assert ("inner", True) in await bench.answers()
    assert bench.acts == ["act"]


async def test_loop_asks_afresh(bench: Bench) -> None:
    """The same node in a loop asks a new question each time round."""

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
