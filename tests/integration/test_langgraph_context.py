"""Runtime context and config of the application are available when the relay resumes a thread."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from awaithumans_adapters.langgraph import GraphEngine
from awaithumans_core import SettingsError
from awaithumans_relay.commands.engines import EngineFlags
from tests.support.graph_bench import Bench, State
from tests.support.people import People
from tests.support.relay import RunningRelay


@dataclass
class Tenant:
    """A runtime context."""

    user: str = "unknown user"


class TenantDict(TypedDict, total=False):
    """A runtime context without required fields."""

    user: str


def made(_: str, thread_id: str) -> Tenant:
    """Return the context of a thread; the command line below names this function."""
    return Tenant(f"user of {thread_id}")


fixed = {"tags": ["approvals"], "configurable": {"user_id": "u-1"}}
"""Config that the command line below names."""


async def _made_async(graph: str, thread_id: str) -> Tenant:
    return made(graph, thread_id)


def compiled(saver: Any, schema: type | None = Tenant) -> Any:
    builder = StateGraph(State, context_schema=schema)
    builder.add_node("node", lambda _: {})
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=[InMemorySaver], ids=["async"])
def bench(request: pytest.FixtureRequest, registrar: RunningRelay, people: People) -> Bench:
    return Bench(request.param(), registrar.human_tasks(), people)


@pytest.mark.parametrize("on_event", [False, True], ids=["invoked", "streamed"])
@pytest.mark.parametrize(
    ("context", "user"),
    [(Tenant("alice"), "alice"), (made, "user of {}"), (_made_async, "user of {}")],
    ids=["fixed", "function", "async function"],
)
async def test_context_is_available_after_the_answer(bench: Bench, context: Any, user: str, *, on_event: bool) -> None:
    """LangGraph does not store the context, so the engine gets a value, or a function of graph name and thread id."""
    seen: list[str] = []

    async def node(state: State, runtime: Runtime[Tenant]) -> State:
        approved = (await bench.ask("a")).approved
        seen.append(runtime.context.user)
        return {"answers": [("a", approved)]}

    async def see(_: object) -> None: ...

    builder = StateGraph(State, context_schema=Tenant)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    bench.use(builder, context=context, **({"on_event": see} if on_event else {}))
    await bench.compiled.ainvoke({"answers": []}, bench.config, context=Tenant("asker"))
    await bench.give("a", True)
    assert seen == [user.format(bench.thread_id)]


@pytest.mark.parametrize("build", [lambda config: config, lambda config: lambda *_: config], ids=["fixed", "function"])
async def test_config_is_available_after_the_answer(bench: Bench, build: Callable[[Any], Any]) -> None:
    """A resumed run has the application's configurable keys, tags and callbacks."""
    seen: list[Any] = []

    class Heard(BaseCallbackHandler):
        def on_chain_start(self, serialized: Any, inputs: Any, **options: Any) -> None:
            if options.get("name") == "node":
                seen.append("callback")

    async def node(state: State, config: RunnableConfig) -> State:
        approved = (await bench.ask("a")).approved
        seen.append((config.get("configurable", {})["user_id"], config.get("tags")))
        return {"answers": [("a", approved)]}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    given: Any = {"configurable": {"user_id": "u-1"}, "tags": ["approvals"], "callbacks": [Heard()]}
    if build(given) is not given:
        given["configurable"]["thread_id"] = bench.thread_id
    bench.use(builder, config=build(given))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("a", True)
    assert seen == ["callback", ("u-1", ["approvals"])]


@pytest.mark.parametrize("schema", [Tenant, TenantDict])
def test_graph_with_a_context_schema_is_refused_without_a_context(schema: type) -> None:
    """The engine refuses it when built, even if every field has a default."""
    with pytest.raises(SettingsError, match=f"'refunds' has the context_schema {schema.__name__}"):
        GraphEngine({"refunds": compiled(InMemorySaver(), schema)})
    GraphEngine({"refunds": compiled(InMemorySaver(), schema)}, context=None)
    GraphEngine({"refunds": compiled(InMemorySaver(), None)})


graph = compiled(InMemorySaver())
"""Value that the command line below names."""
HERE = "tests.integration.test_langgraph_context"


@pytest.mark.parametrize("context", [f"{HERE}:made", f"{HERE}:Tenant", "none"])
@pytest.mark.parametrize("config", [f"{HERE}:fixed", None])
async def test_command_line_takes_context_and_config(context: str, config: str | None) -> None:
    """`serve` and `doctor` accept both as module:attribute."""
    wanted = EngineFlags(None, [f"refunds={HERE}:graph"], None, graph_context=context, graph_config=config)
    for _, make in [("all", wanted.engines), *wanted.separately()]:
        async with AsyncExitStack() as stack:
            (engine,) = await make(stack)
            assert isinstance(engine, GraphEngine)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "--graph-context"),
        ({"graph_context": "made"}, "--graph-context made: write it as module:attribute"),
        ({"graph_context": f"{HERE}:missing"}, "has no attribute 'missing'"),
        ({"graph_context": "none", "graph_config": f"{HERE}:HERE"}, "--graph-config .* is str: give a config"),
    ],
)
async def test_wrong_context_option_is_named_before_the_start(options: dict[str, Any], why: str) -> None:
    """The error names the option before the relay starts."""
    wanted = EngineFlags(None, [f"refunds={HERE}:graph"], None, **options)
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=why):
            await wanted.engines(stack)


async def test_failing_context_function_keeps_the_answer(bench: Bench) -> None:
    """The next delivery calls the function again, and no node has run before that."""
    fails = [ConnectionError("no directory of users")]

    def sometimes(_: str, __: str) -> Tenant:
        if fails:
            raise fails.pop()
        return Tenant("alice")

    async def node(state: State, runtime: Runtime[Tenant]) -> State:
        return {"answers": [(runtime.context.user, (await bench.ask("a")).approved)]}

    builder = StateGraph(State, context_schema=Tenant)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    bench.use(builder, context=sometimes)
    await bench.compiled.ainvoke({"answers": []}, bench.config, context=Tenant("asker"))
    with pytest.raises(ConnectionError):
        await bench.give("a", True)
    await bench.give("a", True)
    assert (await bench.compiled.aget_state(bench.config)).values["answers"] == [["alice", True]]
