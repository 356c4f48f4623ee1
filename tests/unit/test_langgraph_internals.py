"""Each private name of LangGraph that `internals.py` knows has a test, named for it, against the installed release.

A test that fails names what a release has renamed: `internals.py` is then the one module to change. Two names are
tested elsewhere, because only a LangGraph server has them: `langgraph_api_version` in test_langgraph_server.py and
`langgraph_auth_user_id` in test_langgraph_auth.py.
"""

import asyncio
import inspect
import operator
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast
from weakref import ref

import pytest
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_config
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import UnknownInterruptError
from langgraph.func import task
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command, RetryPolicy, interrupt

from awaithumans_adapters.langgraph import internals
from awaithumans_adapters.langgraph.node.position import configured


class State(TypedDict, total=False):
    seen: Annotated[list[Any], operator.add]


CONFIG: Any = {"configurable": {"thread_id": "internals"}}


def renamed(name: str) -> str:
    """What a failing test reports."""
    return f"langgraph {version('langgraph')} does not have {name!r} any more: change internals.py"


def graph_of(node: Any, **options: Any) -> Any:
    """A graph with one node."""
    builder = StateGraph(State).add_node("node", node, **options).add_edge(START, "node").add_edge("node", END)
    return builder.compile(checkpointer=InMemorySaver())


def inside() -> dict[str, Any]:
    """What LangGraph has configured for a node of a sync run."""
    found: dict[str, Any] = {}

    def reads(state: State) -> State:
        found.update(configured())
        return {}

    graph_of(reads).invoke({}, CONFIG)
    return found


async def inside_async() -> dict[str, Any]:
    """What LangGraph has configured for a node of an async run."""
    found: dict[str, Any] = {}

    async def reads(state: State) -> State:
        found.update(configured())
        found["node"] = internals.node_of(configured()[internals.CALL])
        return {}

    await graph_of(reads).ainvoke({}, CONFIG)
    return found


def writes_of(graph: Any, config: Any = CONFIG) -> list[tuple[str, str, Any]]:
    """What the latest checkpoint keeps beside its values."""
    saved = graph.checkpointer.get_tuple(config)
    assert saved is not None
    return list(saved.pending_writes)


def channels(graph: Any) -> set[str]:
    return {channel for _, channel, _ in writes_of(graph)}


@task
def doubled(number: int) -> int:
    return 2 * number


def asks(state: State) -> State:
    return {"seen": [interrupt("first?"), interrupt("second?")]}


@pytest.fixture
def waiting() -> Any:
    """A graph that has its first answer and waits for the second."""
    graph = graph_of(asks)
    graph.invoke({}, CONFIG)
    graph.invoke(Command(resume="yes"), CONFIG)
    return graph


# --- The config of a node ---------------------------------------------------------------------------------------------


def test_pregel_call() -> None:
    """A node finds the function that starts LangGraph tasks, with the parameters that `HiddenCall` gives it."""
    found: list[Any] = []

    def calls(state: State) -> State:
        call = configured().get(internals.CALL)
        assert call is not None, renamed(internals.CALL)
        found.append(call(lambda number: number + 1, ((1,), {}), callbacks=None).result())
        return {}

    graph_of(calls).invoke({}, CONFIG)
    assert found == [2]


async def test_pregel_call_is_bound_to_the_loop_of_async_runs_only() -> None:
    """`loop` is the event loop of an async run, and missing in a sync run, which tells them apart."""
    bound = internals.call_options(await inside_async())
    assert bound is not None, renamed(internals.CALL)
    assert bound.get("loop") is asyncio.get_running_loop(), renamed("loop of __pregel_call")
    sync = internals.call_options(await asyncio.to_thread(inside))
    assert sync is not None, renamed(internals.CALL)
    assert "loop" not in sync


def test_pregel_call_schedule_task() -> None:
    """`schedule_task` is a method of the graph's loop, whose `checkpointer` is None if the graph stores nothing."""
    bound = internals.call_options(inside()) or {}
    assert hasattr(bound.get("schedule_task"), "__self__"), renamed("schedule_task of __pregel_call")
    assert hasattr(bound["schedule_task"].__self__, "checkpointer"), renamed("checkpointer of the graph's loop")
    stored: list[bool] = []

    def notes(state: State) -> State:
        stored.append(internals.stores_checkpoints(configured()))
        return {}

    inner = StateGraph(State).add_node("notes", notes).add_edge(START, "notes")
    for checkpointer in (None, False):
        graph_of(inner.compile(checkpointer=checkpointer)).invoke({}, CONFIG)
    assert stored == [True, False], renamed("checkpointer of the graph's loop")


def test_run_metadata() -> None:
    """The loop keeps the config of its run and whether another graph is around it; that loop is in this config."""
    loop = internals.graph_loop(inside())
    assert loop.is_nested is False, renamed("is_nested of the graph's loop")
    assert hasattr(loop, "config"), renamed("config of the graph's loop")
    found: list[Any] = []

    def reads(state: State) -> State:
        own, run = get_config().get("metadata", {}), internals.run_metadata(configured())
        found.extend([run.get("given"), run.get(internals.NODE_NAMESPACE), own.get(internals.NODE_NAMESPACE)])
        return {}

    inner = StateGraph(State).add_node("reads", reads).add_edge(START, "reads").compile()
    graph_of(inner).invoke({}, {**CONFIG, "metadata": {"given": "yes", internals.NODE_NAMESPACE: "caller"}})
    assert found[:2] == ["yes", "caller"], renamed("config of the outermost graph's loop")
    assert str(found[2]).startswith("node:"), renamed(internals.NODE_NAMESPACE)


def test_langgraph_checkpoint_ns_is_passed_on_by_a_remote_graph() -> None:
    """`RemoteGraph` passes on the metadata of the node that calls it, and not whether it is a node."""
    node: Any = {"metadata": {internals.NODE_NAMESPACE: "node:1"}, "configurable": {"__pregel_task_id": "1"}}
    sent = RemoteGraph("any")._sanitize_config(node)  # pyright: ignore[reportPrivateUsage]
    assert sent.get("metadata") == node["metadata"], renamed(internals.NODE_NAMESPACE)
    assert sent.get("configurable") == {}, "a remote graph counts as nested: change run_metadata"


async def test_without_remote_states() -> None:
    """`subgraphs` of a node are the graphs that it is or refers to; a copy of the graph reads its threads."""
    remote: Any = RemoteGraph("any")  # without a client: reading its state raises

    def refers(state: State) -> State:
        return {"seen": [interrupt("first?"), remote]}

    inner = StateGraph(State).add_node("remote", remote).add_node("refers", refers).add_edge(START, "refers").compile()
    graph = graph_of(inner)
    await graph.ainvoke({}, CONFIG)
    assert inner.nodes["refers"].subgraphs == [remote], renamed("subgraphs of a node")
    view = internals.without_remote_states(inner)
    assert isinstance(view.nodes["remote"].subgraphs[0], internals.NoState)
    with pytest.raises(ValueError, match="client is not initialized"):
        await graph.aget_state(CONFIG, subgraphs=True)
    for state in (
        await internals.without_remote_states(graph).aget_state(CONFIG, subgraphs=True),
        internals.without_remote_states(graph).get_state(CONFIG, subgraphs=True),
    ):
        assert [shown.value for shown in state.tasks[0].state.interrupts] == ["first?"]
    local = graph_of(refers_to_nothing)
    assert internals.without_remote_states(local) is local


def refers_to_nothing(state: State) -> State:
    return {}


async def test_pregel_call_node() -> None:
    """The call holds its node by a weak reference: a dataclass with the config that tasks inherit."""
    node = (await inside_async())["node"]
    assert node is not None, renamed("the node of __pregel_call")
    assert is_dataclass(cast("object", node))
    assert node.config["configurable"]["thread_id"] == "internals"


def test_calling_for_another_node() -> None:
    """The call works for a copy of its node, whose tags the task gets."""
    found: list[Any] = []

    def tags(_: object) -> Any:
        return get_config().get("tags")

    def calls(state: State) -> State:
        call = configured()[internals.CALL]
        node = internals.node_of(call)
        tagged = replace(node, config={**node.config, "tags": ["ours"]})
        assert ref(tagged)() is tagged
        found.append(internals.calling_for(call, tagged)(tags, ((None,), {}), callbacks=None).result())
        return {}

    graph_of(calls).invoke({}, CONFIG)
    assert found == [["ours"]], renamed("the node of __pregel_call")


def test_pregel_checkpointer() -> None:
    """A node finds the checkpointer of its graph, and a run uses the one it is lent."""
    assert isinstance(inside().get(internals.CHECKPOINTER), InMemorySaver), renamed(internals.CHECKPOINTER)
    graph, lent = graph_of(lambda _: {}), InMemorySaver()
    graph.invoke({}, {"configurable": {"thread_id": "internals", internals.CHECKPOINTER: lent}})
    assert lent.get_tuple(CONFIG) is not None, renamed(internals.CHECKPOINTER)
    assert graph.checkpointer.get_tuple(CONFIG) is None


def test_pregel_scratchpad() -> None:
    """A node finds its memory, with all that is read of it."""
    memory = inside().get(internals.SCRATCHPAD)
    assert memory is not None, renamed(internals.SCRATCHPAD)
    for name in ("resume", "interrupt_counter", "get_null_resume"):
        assert hasattr(memory, name), renamed(f"{name} of the scratchpad")


def test_scratchpad_resume() -> None:
    """It has the answers of the node, in the order in which they were given."""
    answers: list[list[Any]] = []

    def notes(state: State) -> State:
        answers.append(list(internals.scratchpad(configured()).resume))
        return asks(state)

    graph = graph_of(notes)
    steps: list[Any] = [{}, Command(resume="yes"), Command(resume="no")]
    for given in steps:
        graph.invoke(given, CONFIG)
    assert answers[0] == [], renamed("resume of the scratchpad")
    assert answers[2] == ["yes"], renamed("resume of the scratchpad")  # the second answer is a null resume until taken
    assert graph.get_state(CONFIG).values["seen"] == ["yes", "no"]


def test_scratchpad_interrupt_counter_and_get_null_resume() -> None:
    """The first is another one in each attempt of a node, the second the same one, which tells attempts apart."""
    attempts: list[tuple[Any, Any]] = []

    def fails_once(state: State) -> State:
        memory = internals.scratchpad(configured())
        attempts.append((memory.interrupt_counter, memory.get_null_resume))
        if len(attempts) == 1:
            raise ConnectionError
        return {}

    policy = RetryPolicy(initial_interval=0.001, jitter=False)
    graph_of(fails_once, retry_policy=policy).invoke({}, CONFIG)
    (first, first_run), (second, second_run) = attempts
    assert first is not second, renamed("interrupt_counter of the scratchpad")
    assert first_run is second_run, renamed("get_null_resume of the scratchpad")


def test_checkpoint_map() -> None:
    """A node of a subgraph finds the checkpoint of each graph around it, by namespace."""
    found: dict[str, Any] = {}

    def reads(state: State) -> State:
        found.update(configured())
        return {}

    inner = StateGraph(State).add_node("reads", reads).add_edge(START, "reads").compile()
    graph_of(inner).invoke({}, CONFIG)
    around = found.get(internals.CHECKPOINT_MAP)
    assert isinstance(around, Mapping), renamed(internals.CHECKPOINT_MAP)
    graph = found["checkpoint_ns"].rpartition("|")[0]
    assert {"", graph} <= set(cast("Mapping[str, str]", around)), renamed(internals.CHECKPOINT_MAP)


def test_pregel_strict_resume(waiting: Any) -> None:
    """With it, a resume for an interrupt that does not wait raises and runs nothing."""
    strict: Any = {"configurable": {**CONFIG["configurable"], internals.STRICT_RESUME: True}}
    try:
        waiting.invoke(Command(resume={"0" * 32: "late"}), strict)
    except UnknownInterruptError:
        return
    pytest.fail(renamed(internals.STRICT_RESUME))


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def test_channel_interrupt(waiting: Any) -> None:
    """A checkpoint keeps interrupts under this name, and a run returns them under it."""
    assert internals.INTERRUPT in channels(waiting), renamed(internals.INTERRUPT)
    assert internals.INTERRUPT in graph_of(asks).invoke({}, CONFIG), renamed(internals.INTERRUPT)


def test_channel_resume(waiting: Any) -> None:
    """A checkpoint keeps the answers of a task under this name, as a list."""
    kept = [value for _, channel, value in writes_of(waiting) if channel == internals.RESUME]
    assert ["yes"] in kept, renamed(internals.RESUME)


def test_channel_error() -> None:
    """A checkpoint keeps the failure of a task under this name."""

    def fails(state: State) -> State:
        raise ZeroDivisionError

    graph = graph_of(fails)
    with pytest.raises(ZeroDivisionError):
        graph.invoke({}, CONFIG)
    assert internals.ERROR in channels(graph), renamed(internals.ERROR)


def test_channel_error_handled() -> None:
    """A checkpoint keeps under this name that an error handler has taken over from a node that failed."""

    def fails(state: State) -> State:
        raise ZeroDivisionError

    def handles(state: State) -> State:
        return {"seen": [interrupt("wait")]}

    builder = StateGraph(State).add_node("node", fails, error_handler=handles).add_edge(START, "node")
    graph = builder.compile(checkpointer=InMemorySaver())
    graph.invoke({}, CONFIG)
    assert internals.ERROR_HANDLED in channels(graph), renamed(internals.ERROR_HANDLED)


def test_pregel_node_error() -> None:
    """An error handler finds the failure of its node under this name, and a node finds nothing under it."""
    found: dict[str, bool] = {}

    def fails(state: State) -> State:
        found["node"] = internals.NODE_ERROR in configured()
        raise ZeroDivisionError

    def handles(state: State) -> State:
        found["handler"] = internals.NODE_ERROR in configured()
        return {}

    builder = StateGraph(State).add_node("node", fails, error_handler=handles).add_edge(START, "node")
    builder.compile(checkpointer=InMemorySaver()).invoke({}, CONFIG)
    assert found == {"node": False, "handler": True}, renamed(internals.NODE_ERROR)


def test_names_in_the_record_of_a_server_run() -> None:
    """The installed server marks context, and the tracing project of a run, with these names."""
    api = Path(str(find_spec("langgraph_api").origin)).parent  # type: ignore[union-attr]
    source = "".join((api / name).read_text() for name in ("models/run.py", "stream.py", "validation.py"))
    for name in (internals.CONTEXT_GIVEN, *internals.TRACING):
        assert f'"{name}"' in source, renamed(name)


def test_channel_return() -> None:
    """A checkpoint keeps the result of a LangGraph task inside a node under this name."""

    def calls(state: State) -> State:
        return {"seen": [doubled(21).result(), interrupt("wait")]}

    graph = graph_of(calls)
    graph.invoke({}, CONFIG)
    assert [value for _, channel, value in writes_of(graph) if channel == internals.RETURN] == [42], renamed(
        internals.RETURN
    )


def test_channel_scheduled() -> None:
    """LangGraph's own table of channels for what is not a result has this name, and no other than these."""
    known = {internals.ERROR, internals.SCHEDULED, internals.INTERRUPT, internals.RESUME}
    assert set(WRITES_IDX_MAP) == known, renamed(internals.SCHEDULED)


def test_seen_at_breakpoint() -> None:
    """A checkpoint that stopped at a breakpoint keeps under this name which versions of the channels were seen."""
    builder = StateGraph(State).add_node("node", lambda _: {}).add_edge(START, "node")
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["node"])
    graph.invoke({}, CONFIG)
    graph.invoke(None, CONFIG)
    saved = cast("InMemorySaver", graph.checkpointer).get_tuple(CONFIG)
    assert saved is not None
    assert internals.SEEN_AT_BREAKPOINT in saved.checkpoint["versions_seen"], renamed("versions_seen at a breakpoint")


def test_metadata_parents() -> None:
    """The metadata of a subgraph's checkpoint name the checkpoints around it."""
    inner = StateGraph(State).add_node("asks", asks).add_edge(START, "asks").compile()
    graph = graph_of(inner)
    graph.invoke({}, CONFIG)
    saver = graph.checkpointer
    saved = [each for each in saver.list(CONFIG) if each.config["configurable"]["checkpoint_ns"]]
    assert saved
    outer = saver.get_tuple(CONFIG).config["configurable"]["checkpoint_id"]
    assert all(internals.parents_of(each).get("") == outer for each in saved), renamed(internals.PARENTS)


def test_interrupt_from_ns(waiting: Any) -> None:
    """The id of an interrupt follows from the namespace of its task and the number of answers the task had."""
    (shown,) = waiting.get_state(CONFIG).tasks
    assert shown.interrupts[0].id == internals.interrupt_id_at(f"node:{shown.id}|1"), renamed("Interrupt.from_ns")
    graph = graph_of(asks)
    graph.invoke({}, CONFIG)
    (first,) = graph.get_state(CONFIG).tasks
    assert first.interrupts[0].id == internals.interrupt_id_at(f"node:{first.id}"), renamed("Interrupt.from_ns")


async def test_error_of_a_cancelled_task() -> None:
    """A task that was cancelled, here because another one has failed, is stored as a failure that says so."""
    entered = asyncio.Event()

    async def sleeps(state: State) -> State:
        entered.set()
        await asyncio.sleep(30)
        return {}

    async def fails(state: State) -> State:
        await entered.wait()
        raise ZeroDivisionError

    builder = StateGraph(State).add_node("sleeps", sleeps).add_node("fails", fails)
    graph = builder.add_edge(START, "sleeps").add_edge(START, "fails").compile(checkpointer=InMemorySaver())
    with pytest.raises(ZeroDivisionError):
        await graph.ainvoke({}, CONFIG)
    cancelled = [each.name for each in (await graph.aget_state(CONFIG)).tasks if internals.was_cancelled(each)]
    assert cancelled == ["sleeps"], renamed("CancelledError of a task")


# --- Graphs and checkpointers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupt_nodes_of_a_graph(when: str) -> None:
    """A compiled graph keeps the nodes at which it stops in `interrupt_before_nodes` and `interrupt_after_nodes`."""
    stops: Any = {f"interrupt_{when}": ["node"]}
    builder = StateGraph(State).add_node("node", asks).add_edge(START, "node")
    found = internals.breakpoint_nodes(builder.compile(**stops), when)
    assert list(found) == ["node"], renamed(f"interrupt_{when}_nodes")
    stops = {f"interrupt_{when}": "*"}
    assert internals.breakpoint_nodes(builder.compile(**stops), when) == "*"


def test_config_of_a_graph() -> None:
    """`with_config` is kept in `config`."""
    bound = graph_of(asks).with_config(tags=["bound"])
    assert internals.bound_config(bound).get("tags") == ["bound"], renamed("config of a graph")


def test_tags_of_nodes() -> None:
    """A compiled graph has its nodes by name, each with its tags; LangGraph hides the first one by its tag."""
    found = internals.node_tags(graph_of(asks))
    assert set(found) == {START, "node"}, renamed("nodes of a graph")
    assert list(found[START]) == [TAG_HIDDEN], renamed("tags of a node")


def test_storage_of_the_saver_in_memory() -> None:
    """It keeps checkpoints by thread and namespace, the oldest thread first."""
    graph = graph_of(lambda _: {})
    for thread_id in ("one", "two"):
        graph.invoke({}, {"configurable": {"thread_id": thread_id}})
    stored = internals.threads_in_memory(graph.checkpointer)
    assert list(stored) == ["one", "two"], renamed("storage of InMemorySaver")
    assert list(stored["one"]) == [""]


async def test_connection_and_loop_of_the_async_sqlite_saver(tmp_path: Path) -> None:
    """`conn` with `in_transaction`, `lock` and `loop`."""
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        found = internals.connection_of(saver)
        assert found is not None, renamed("conn and lock of AsyncSqliteSaver")
        assert found == (saver.conn, saver.lock)
        assert internals.loop_of(saver) is asyncio.get_running_loop(), renamed("loop of AsyncSqliteSaver")
    assert internals.loop_of(InMemorySaver()) is None
    assert internals.connection_of(InMemorySaver()) is None


def test_loop_of_the_async_postgres_saver() -> None:
    """It keeps the event loop on which it was made under the same name."""
    assert "self.loop" in inspect.getsource(AsyncPostgresSaver.__init__), renamed("loop of AsyncPostgresSaver")


def test_every_name_has_a_test() -> None:
    """A name that is added to `internals.py` is used here, or is one that only a server has."""
    here = Path(__file__).read_text()
    names = [name for name, each in vars(internals).items() if isinstance(each, str) and name.isupper()]
    functions = [
        name for name, each in vars(internals).items() if getattr(each, "__module__", "") == internals.__name__
    ]
    untested = {name for name in names + functions if f"internals.{name}" not in here}
    assert untested == {"SERVER_VERSION", "SERVER_USER", "Scratchpad"}
