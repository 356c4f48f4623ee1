"""A checkpointer that cannot be written: a yes is acted on at most once, and an unstored result is parked."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine
from awaithumans_core import Outcome, TargetGone, TargetNotReady
from awaithumans_relay.store import Store
from tests.support.dying_relay import asks_and_pays
from tests.support.graph_bench import Bench, State
from tests.support.people import People
from tests.support.postgres import PostgresServer
from tests.support.relay import RunningRelay
from tests.support.savers import SAVERS, STORAGE_FAULTS, PartlyRefusingSaver, Refused, SaverBench, opener

TRIES = 4
"""Number of deliveries that a relay makes while the storage refuses writes."""


class StorageBench(SaverBench):
    """A node that asks and acts, and a node that acts after it; acts are counted in a file."""

    def __init__(self, saver: Any, relay: RunningRelay, people: People, folder: Path) -> None:
        super().__init__(saver, relay.human_tasks(), people)
        self.file = folder / "acts"
        self.hold = asyncio.Event()
        self.hold.set()

    def build(self) -> None:
        builder = StateGraph(State)
        builder.add_node("ask", self._asks_sync if self.is_sync else self._asks)
        builder.add_node("pay", self._pays_sync if self.is_sync else self._pays)
        builder.add_edge(START, "ask")
        builder.add_edge("ask", "pay")
        builder.add_edge("pay", END)
        self.use(builder)

    def count(self, node: str) -> int:
        return self.file.read_text().split().count(node) if self.file.exists() else 0

    async def deliver_again(self, times: int) -> list[Exception]:
        """Deliver repeatedly and return what each delivery raised."""
        raised: list[Exception] = []
        for _ in range(times):
            try:
                await self.give("q", True)
            except Exception as error:
                raised.append(error)
        return raised

    async def history(self) -> list[Any]:
        if self.is_sync:
            return list(await asyncio.to_thread(lambda: list(self.compiled.get_state_history(self.config))))
        return [state async for state in self.compiled.aget_state_history(self.config)]

    def _note(self, node: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{node}\n")

    async def _asks(self, state: State) -> State:
        approved = (await self.ask("q")).approved
        self._note("ask")
        return {"answers": [("q", approved)]}

    def _asks_sync(self, state: State) -> State:
        approved = self.ask_sync("q")
        self._note("ask")
        return {"answers": [("q", approved)]}

    async def _pays(self, state: State) -> State:
        self._note("pay")
        await self.hold.wait()
        return {}

    def _pays_sync(self, state: State) -> State:
        self._note("pay")
        return {}


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the database of the saver that the test's parameter `saver_name` names."""
    if not request.getfixturevalue("saver_name").startswith("postgres"):
        return str(tmp_path / "checkpoints.db")
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.database()


@pytest.fixture
async def storage(
    saver_name: str, database: str, registrar: RunningRelay, people: People, tmp_path: Path
) -> AsyncGenerator[StorageBench]:
    """Yield a thread that waits for its answer."""
    async with opener(saver_name, database)() as saver:
        bench = StorageBench(saver, registrar, people, tmp_path)
        bench.build()
        await bench.start()
        yield bench


@pytest.mark.parametrize("saver_name", SAVERS)
async def test_no_node_runs_while_every_write_is_refused(storage: StorageBench) -> None:
    """Once the storage accepts writes again, the answer is delivered and each node acts once."""
    storage.saver.refused = "everything"
    raised = await storage.deliver_again(TRIES)
    assert (len(raised), storage.count("ask")) == (TRIES, 0)
    storage.saver.refused = None
    await storage.give("q", True)
    await storage.give("q", True)
    assert (storage.count("ask"), storage.count("pay")) == (1, 1)


@pytest.mark.parametrize("redriven", [False, True], ids=["delivered", "redriven"])
@pytest.mark.parametrize(
    ("fault", "saver_name"),
    [(fault, f"{kind}{mode}") for fault, (kind, _) in STORAGE_FAULTS.items() for mode in ("", "-async")],
)
async def test_no_node_runs_on_unwritable_real_storage(
    storage: StorageBench, database: str, fault: str, *, redriven: bool
) -> None:
    """With a full disk, a lock or a read-only server no node acts, and each acts once afterwards."""
    async with STORAGE_FAULTS[fault][1](storage.saver, database):
        for _ in range(TRIES):
            with pytest.raises(Exception, match=r"full|locked|read-only|closed|terminat|lost"):
                await storage.give("q", True, redriven=redriven)
        assert storage.count("ask") == 0
    if fault != "killed":
        await storage.give("q", True, redriven=redriven)
        assert (storage.count("ask"), storage.count("pay")) == (1, 1)


@pytest.mark.parametrize("saver_name", ["memory", "sqlite-async", "postgres-async"])
async def test_interrupted_run_is_not_continued_while_writes_are_refused(storage: StorageBench) -> None:
    """A run cut off in a later node runs that node only once the storage accepts writes."""
    storage.hold.clear()
    first = asyncio.create_task(storage.give("q", True))
    async with asyncio.timeout(20):
        while not storage.count("pay"):
            await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    storage.hold.set()
    storage.saver.refused = "everything"
    assert len(await storage.deliver_again(TRIES)) == TRIES
    assert (storage.count("ask"), storage.count("pay")) == (1, 1)
    storage.saver.refused = None
    await storage.give("q", True)
    assert (storage.count("ask"), storage.count("pay")) == (1, 2)


@pytest.mark.parametrize("saver_name", SAVERS)
async def test_answer_stored_ahead_of_a_run_is_invisible(storage: StorageBench) -> None:
    """Storing an answer ahead of a run adds no channel and no checkpoint that the application reads."""
    before, history = await storage.state(), await storage.history()
    storage.saver.refused = "after the first write"
    storage.saver.accepted = 0
    with suppress(OSError):
        await storage.give("q", True)
    storage.saver.refused = None
    after = await storage.state()
    assert (after.values, after.next, after.interrupts, after.config) == (
        before.values,
        before.next,
        before.interrupts,
        before.config,
    )
    assert [each.config for each in await storage.history()] == [each.config for each in history]


@pytest.mark.parametrize("saver_name", ["memory", "sqlite", "postgres-async"])
@pytest.mark.parametrize("refused", ["results", "after the first write"])
async def test_run_with_an_unstored_result_is_repeated_once_and_parked(storage: StorageBench, refused: Refused) -> None:
    """The node may have acted, so after a second run the wait is parked with what to do."""
    storage.saver.refused = refused
    raised = await storage.deliver_again(TRIES)
    assert len(raised) == TRIES
    assert storage.count("ask") == (2 if refused == "results" else 1)
    assert storage.count("pay") == 0
    storage.saver.refused = None
    if refused == "results":
        with pytest.raises(TargetGone, match="run 2 times from the same position"):
            await storage.give("q", True)
        await storage.give("q", True, redriven=True)
    else:
        await storage.give("q", True)
    assert (storage.count("ask"), storage.count("pay")) == (3 if refused == "results" else 2, 1)


@pytest.mark.parametrize("saver_name", ["memory", "sqlite", "postgres-async"])
async def test_refused_checkpoints_repeat_no_node(storage: StorageBench) -> None:
    """The asking node's result is stored, so each node acts once after an outage of any length."""
    storage.saver.refused = "checkpoints"
    assert not any(isinstance(error, TargetGone) for error in await storage.deliver_again(TRIES))
    assert (storage.count("ask"), storage.count("pay")) == (1, 0)
    storage.saver.refused = None
    await storage.give("q", True)
    assert (storage.count("ask"), storage.count("pay")) == (1, 1)


# --- the results of one node or of one graph are refused


def asks_and_acts(bench: Bench, name: str) -> Any:
    async def node(state: State) -> State:
        approved = (await bench.ask(name)).approved
        bench.acts.append(name)
        return {"answers": [(name, approved)]}

    return node


async def refused_and_parked(bench: Bench, question: str) -> None:
    """Deliver until the wait is parked: one run, one repetition, no third."""
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            await bench.give(question, True)
    for _ in range(TRIES):
        with pytest.raises(TargetGone, match="run 2 times from the same position"):
            await bench.give(question, True)


@pytest.fixture
def partly(registrar: RunningRelay, people: People) -> Bench:
    """Return a bench whose saver refuses some of the writes."""
    return Bench(PartlyRefusingSaver(), registrar.human_tasks(), people)


async def test_node_around_a_stored_subgraph_runs_once_more(partly: Bench) -> None:
    """If the subgraph's results are stored and its node's are not, the question shown has its answer."""
    inner = StateGraph(State)
    inner.add_node("ask", asks_and_acts(partly, "q"))
    inner.add_edge(START, "ask")
    subgraph = inner.compile()

    async def node(state: State) -> State:
        answers = (await subgraph.ainvoke({"answers": []}))["answers"]
        partly.acts.append("node")
        return {"answers": answers}

    partly.graph(node=node)
    await partly.compiled.ainvoke({"answers": []}, partly.config)
    partly.saver.refused, partly.saver.outer = frozenset({"answers", "checkpoints"}), True
    await refused_and_parked(partly, "q")
    assert partly.acts == ["q", "node", "node"]


async def test_node_with_an_unstored_result_is_not_run_for_another_answer(partly: Bench) -> None:
    """Of two waiting nodes, the limit of the first applies when the second's answer comes."""
    partly.graph(a=asks_and_acts(partly, "a"), b=asks_and_acts(partly, "b"))
    await partly.compiled.ainvoke({"answers": []}, partly.config)
    partly.saver.refused = frozenset({"answers"})
    await refused_and_parked(partly, "a")
    partly.saver.refused = frozenset()
    with pytest.raises(TargetNotReady, match="a has its own answer and its result is not stored"):
        await partly.give("b", True)
    assert partly.acts == ["a", "a"]
    await partly.give("a", True, redriven=True)
    await partly.give("b", True)
    assert partly.acts == ["a", "a", "a", "b", "act"]


async def test_question_stored_only_in_a_subgraph_gets_its_answer(partly: Bench) -> None:
    """A new relay delivers to a second question that only the subgraph has stored."""
    inner = StateGraph(State)
    inner.add_node("first", asks_and_acts(partly, "first"))
    inner.add_node("second", asks_and_acts(partly, "second"))
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    partly.graph(sub=inner.compile())
    await partly.compiled.ainvoke({"answers": []}, partly.config)
    partly.saver.refused, partly.saver.outer = frozenset({"__interrupt__"}), True
    with pytest.raises(OSError, match="no space"):
        await partly.give("first", True)
    partly.saver.refused = frozenset()
    partly.engine = GraphEngine({"bench": partly.compiled})
    await partly.give("first", True)
    await partly.give("second", True)
    assert partly.acts == ["first", "second", "act"]


async def test_question_behind_a_replaced_one_gets_its_answer(partly: Bench) -> None:
    """After a fork of a subgraph was cut off, its outer node still shows the old question."""
    inner = StateGraph(State)
    inner.add_node("first", asks_and_acts(partly, "first"))
    inner.add_node("second", asks_and_acts(partly, "second"))
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    partly.graph(sub=inner.compile())
    await partly.compiled.ainvoke({"answers": []}, partly.config)
    await partly.give("first", True)
    (around,) = (await partly.compiled.aget_state(partly.config, subgraphs=True)).tasks
    await partly.compiled.aupdate_state(around.state.config, {"answers": []}, as_node="first")
    partly.saver.refused, partly.saver.outer = frozenset({"__interrupt__"}), True
    with pytest.raises(OSError, match="no space"):
        await partly.compiled.ainvoke(None, partly.config)
    partly.saver.refused = frozenset()
    await partly.give("second", False)
    assert partly.acts == ["first", "second", "act"]


async def test_storage_fault_in_a_subgraph_is_no_failure_of_the_graph(partly: Bench) -> None:
    """LangGraph stores it as the error of the outer node, and the next delivery continues the run."""
    inner = StateGraph(State)
    inner.add_node("ask", asks_and_acts(partly, "q"))
    inner.add_edge(START, "ask")
    partly.graph(sub=inner.compile())
    await partly.compiled.ainvoke({"answers": []}, partly.config)
    partly.saver.refused = frozenset({"checkpoints"})
    with pytest.raises(OSError, match="no space"):
        await partly.give("q", True)
    partly.saver.refused = frozenset()
    await partly.give("q", True)
    assert partly.acts == ["q", "act"]


@pytest.mark.edges
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_run_whose_relay_is_killed_is_repeated_once(
    kind: str, registrar: RunningRelay, people: People, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The wait keeps the count: a node whose relay is killed each time runs twice, then the wait is parked."""
    checkpoints, acts = str(tmp_path / "checkpoints.db"), tmp_path / "acts"
    waits = f"sqlite:///{tmp_path / 'waits.db'}"
    if kind == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        waits = postgres.database()
    async with AsyncSqliteSaver.from_conn_string(checkpoints) as saver:
        bench = Bench(saver, registrar.human_tasks(), people)
        graph = asks_and_pays(acts, human_tasks=bench.human_tasks).compile(checkpointer=saver)
        (shown,) = (await graph.ainvoke({"answers": []}, bench.config))["__interrupt__"]
    answer = Outcome(
        task_id=shown.value["task_id"],
        idempotency_key=shown.value["idempotency_key"],
        status="completed",
        response={"approved": True},
    )
    store = Store(waits)
    await store.start()
    await store.intake.answer(answer, found_by="callback", route=bench.route_of(shown.value["idempotency_key"]))

    async def relay(*die: str) -> int:
        here = [sys.executable, "-m", "tests.support.dying_relay", checkpoints, waits, str(acts), *die]
        process = await asyncio.create_subprocess_exec(*here)
        return await asyncio.wait_for(process.wait(), 60)

    assert [await relay("die") for _ in range(3)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    (wait,) = await store.queries.find(answer.task_id)
    assert (wait.state, acts.read_text().split()) == ("parked", ["pay"] * 2)
    assert "run 2 times from the same position" in (wait.last_error or "")
    assert await store.upkeep.redrive(task_id=answer.task_id) == 1
    assert await relay() == 0
    assert await store.queries.counts() == {"delivered": 1}
    assert acts.read_text().split() == ["pay"] * 3
    await store.stop()
