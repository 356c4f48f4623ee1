"""`await_human` in nodes: superseded questions, failures around the answer, several graphs, and checkpoint content."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from devservers import HumansServer, free_port
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_core import HumanTasks, ServerUnreachableError, SettingsError, TargetGone, TargetNotReady
from awaithumans_core.errors import RequestRefusedError
from tests.support.graph_bench import Bench, State
from tests.support.people import People
from tests.support.relay import RunningRelay, served, settings_for
from tests.support.workflows import Decision


async def test_resume_by_hand_with_a_foreign_answer_is_ignored(bench: Bench) -> None:
    """A resume with another question's answer, or a bare yes, does not move the node past its question."""

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for wrong in (True, {"approved": True}, {"idempotency_key": "another", "status": "completed", "task_id": "t"}):
        await bench.compiled.ainvoke(Command(resume=wrong), bench.config)
        assert (await bench.compiled.aget_state(bench.config)).next == ("node",)
    await bench.give("a", False)
    assert await bench.answers() == {("a", False)}


async def test_resume_with_an_open_task_is_no_answer(bench: Bench) -> None:
    """An app that resumes with the interrupt's own value or the open task leaves the thread waiting."""

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    (shown,) = (await bench.compiled.aget_state(bench.config)).interrupts
    for wrong in ({**shown.value, "approved": True}, await bench.task("a")):
        await bench.compiled.ainvoke(Command(resume=wrong), bench.config)
    assert await bench.engine.orphaned(await bench.route("a")) is None
    await bench.give("a", False)
    assert await bench.answers() == {("a", False)}


async def test_answer_to_a_superseded_question_is_parked(bench: Bench) -> None:
    """New input replaces the interrupt, and the old answer does not reach the new question."""

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old = await bench.task("a")
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(TargetGone, match="moved on"):
        await bench.deliver(old["idempotency_key"], approved=True, task_id=old["id"])
    assert bench.acts == []
    assert (await bench.compiled.aget_state(bench.config)).next == ("node",)


async def test_answer_before_the_checkpoint_is_saved_is_tried_later(bench: Bench) -> None:
    """Until its interrupt is saved the thread is not ready, and an answer never starts it."""
    with_task = asyncio.Event()

    async def node(state: State) -> State:
        with_task.set()
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    with pytest.raises(TargetNotReady):
        await bench.deliver("langgraph:any", approved=True)
    assert not with_task.is_set()
    assert (await bench.compiled.aget_state(bench.config)).values == {}


async def test_answer_waits_for_a_running_sibling(bench: Bench) -> None:
    """While a branch beside the question still runs in the application, the answer waits for it."""

    async def asks(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    async def slow(state: State) -> State:
        bench.acts.append("slow")
        await asyncio.sleep(2)
        return {"answers": []}

    bench.graph(asks=asks, slow=slow)
    run = asyncio.create_task(bench.compiled.ainvoke({"answers": []}, bench.config))
    task = await bench.task("a")
    await asyncio.sleep(0.5)
    with pytest.raises(TargetNotReady):
        await bench.deliver(task["idempotency_key"], approved=True, task_id=task["id"])
    await run
    await bench.give("a", True)
    assert bench.acts == ["slow", "act"]


async def test_node_that_fails_after_the_answer_is_not_run_again(bench: Bench) -> None:
    """The wait keeps the error, a second delivery runs nothing again, and the application can continue."""
    broken = [True]

    async def node(state: State) -> State:
        decision = await bench.ask("a")
        bench.acts.append("charge")
        if broken:
            raise ZeroDivisionError
        return {"answers": [("a", decision.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for _ in range(2):
        with pytest.raises(TargetGone, match=r"node 'node' failed \(ZeroDivisionError"):
            await bench.give("a", True)
    assert bench.acts == ["charge"]
    broken.clear()
    await bench.compiled.ainvoke(None, bench.config)
    assert await bench.answers() == {("a", True)}


async def test_node_that_fails_before_its_question_gets_the_answer_later(bench: Bench) -> None:
    """A node that fails before its question has not taken the answer, so it is delivered again."""
    stumbles = [False]

    async def node(state: State) -> State:
        if stumbles[0]:
            raise ConnectionError("the shop is unreachable")
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    stumbles[0] = True
    with pytest.raises(ConnectionError):
        await bench.give("a", True)
    stumbles[0] = False
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}
    assert bench.acts == ["act"]


async def test_run_killed_after_the_answer_is_finished_by_the_next_delivery(bench: Bench) -> None:
    """A run that is cut off after the thread took the answer is finished by the next delivery."""
    gate = asyncio.Event()

    async def node(state: State) -> State:
        decision = await bench.ask("a")
        await gate.wait()
        return {"answers": [("a", decision.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    first = asyncio.create_task(bench.give("a", True))
    await bench.task("a")
    await asyncio.sleep(0.5)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}
    assert bench.acts == ["act"]


async def test_run_killed_in_a_later_node_is_finished_by_the_next_delivery(bench: Bench) -> None:
    """A relay that is killed after the asking node ended leaves a thread that the next delivery finishes."""
    gate, started = asyncio.Event(), asyncio.Event()

    async def asks(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    async def pays(state: State) -> State:
        started.set()
        await gate.wait()
        bench.acts.append("paid")
        return {}

    builder = StateGraph(State)
    builder.add_node("asks", asks)
    builder.add_node("pays", pays)
    builder.add_edge(START, "asks")
    builder.add_edge("asks", "pays")
    builder.add_edge("pays", END)
    bench.use(builder)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    first = asyncio.create_task(bench.give("a", True))
    await asyncio.wait_for(started.wait(), 20)
    await asyncio.sleep(0.3)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await bench.give("a", True)
    await bench.give("a", True)
    assert bench.acts == ["paid"]
    assert (await bench.compiled.aget_state(bench.config)).next == ()


async def test_node_cancelled_from_within_is_not_run_again(bench: Bench) -> None:
    """A CancelledError raised by the node itself is a failure of the node, not of the relay."""

    async def node(state: State) -> State:
        await bench.ask("a")
        bench.acts.append("charge")
        inner = asyncio.create_task(asyncio.sleep(10))
        inner.cancel()
        await inner
        return {}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with contextlib.suppress(Exception):
        await bench.give("a", True)
    assert bench.acts == ["charge"]


async def test_questions_in_another_order_on_resume_are_refused(bench: Bench) -> None:
    """LangGraph matches calls by order, so a changed order gets no answer of another question."""
    orders = [["ten", "million"], ["million", "ten"]]

    async def node(state: State) -> State:
        return {"answers": [(item, (await bench.ask(item)).approved) for item in orders.pop(0)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(TargetGone, match="differs in task"):
        await bench.give("ten", True)
    assert await bench.answers() == set()


async def test_branches_that_share_a_key_both_get_the_answer(bench: Bench) -> None:
    """If one branch takes the answer while the other fails before its question, the next delivery serves the other."""
    stumbles = [False]

    async def ask() -> Decision:
        return await await_human(
            task="shared?", response_schema=Decision, human_tasks=bench.human_tasks, idempotency_key=bench.thread_id
        )

    async def a(state: State) -> State:
        return {"answers": [("a", (await ask()).approved)]}

    async def b(state: State) -> State:
        if stumbles[0]:
            await asyncio.sleep(0.3)
            raise ConnectionError("away")
        return {"answers": [("b", (await ask()).approved)]}

    bench.graph(a=a, b=b)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    stumbles[0] = True
    with pytest.raises(ConnectionError):
        await bench.deliver(bench.thread_id, approved=True)
    stumbles[0] = False
    await bench.deliver(bench.thread_id, approved=True)
    assert await bench.answers() == {("a", True), ("b", True)}
    assert bench.acts == ["act"]


async def test_answer_goes_to_the_graph_that_owns_the_thread(bench: Bench) -> None:
    """Of two graphs on one saver the owner of the thread takes the answer, whichever is tried first."""

    async def asks(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    async def other(state: State) -> State:
        raise AssertionError("not my thread")

    bench.graph(other=other)
    stranger = bench.compiled
    bench.graph(asks=asks)
    bench.engine = GraphEngine({"other": stranger, "mine": bench.compiled})
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("a", True)
    assert await bench.answers() == {("a", True)}


async def test_indistinguishable_graphs_park_the_answer(bench: Bench) -> None:
    """Two graphs on one saver with the same node names run no code rather than the wrong one."""
    ran: list[str] = []

    def node(name: str) -> Callable[[State], Any]:
        async def asks(state: State) -> State:
            ran.append(name)
            return {"answers": [("a", (await bench.ask("a")).approved)]}

        return asks

    bench.graph(asks=node("wrong"))
    stranger = bench.compiled
    bench.graph(asks=node("right"))
    bench.engine = GraphEngine({"refunds": stranger, "claims": bench.compiled})
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    with pytest.raises(TargetGone, match="refunds, claims"):
        await bench.give("a", True)
    assert ran == ["right"]


async def test_thread_resumed_by_the_application_and_the_relay_continues(bench: Bench) -> None:
    """If the application resumes its own interrupt as our answer comes, both branches count once."""

    async def ours(state: State) -> State:
        return {"answers": [("ours", (await bench.ask("ours")).approved)]}

    async def theirs(state: State) -> State:
        said = interrupt({"question": "pay?"})
        bench.acts.append("charge")
        await asyncio.sleep(1.5)
        return {"answers": [("theirs", said)]}

    bench.graph(ours=ours, theirs=theirs)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    shown = (await bench.compiled.aget_state(bench.config)).interrupts
    (mine,) = [each.id for each in shown if "question" in each.value]
    app = asyncio.create_task(bench.compiled.ainvoke(Command(resume={mine: True}), bench.config))
    await asyncio.sleep(0.7)
    with contextlib.suppress(TargetNotReady):
        await bench.give("ours", True)
    await app
    await bench.give("ours", True)
    assert bench.acts == ["charge", "act"]
    assert await bench.answers() == {("ours", True), ("theirs", True)}


async def test_second_delivery_leaves_the_applications_run_alone(bench: Bench) -> None:
    """Nodes after the application's own resume are run by the application, not by a repeated delivery."""
    running, finish = asyncio.Event(), asyncio.Event()

    async def ours(state: State) -> State:
        return {"answers": [("ours", (await bench.ask("ours")).approved)]}

    async def theirs(state: State) -> State:
        return {"answers": [("theirs", interrupt("pay?"))]}

    async def charge(state: State) -> State:
        bench.acts.append("charge")
        running.set()
        await finish.wait()
        return {}

    builder = StateGraph(State)
    builder.add_sequence([("ours", ours), ("theirs", theirs), ("charge", charge)])
    builder.add_edge(START, "ours")
    bench.use(builder)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("ours", True)
    app = asyncio.create_task(bench.compiled.ainvoke(Command(resume=True), bench.config))
    await running.wait()
    asyncio.get_running_loop().call_later(1, finish.set)
    await bench.give("ours", True)
    finish.set()
    await app
    assert bench.acts == ["charge"]


async def test_secrets_stay_out_of_checkpoints(
    bench: Bench, database: Path, registrar: RunningRelay, humans: HumansServer
) -> None:
    """The checkpoint file contains no token, key or callback URL."""

    async def node(state: State) -> State:
        return {"answers": [("a", (await bench.ask("a")).approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    async with aiosqlite.connect(database) as db:
        await db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = database.read_bytes() + database.with_suffix(".db-wal").read_bytes()
    assert bench.thread_id.encode() in held
    (secret,) = registrar.settings.relay_secret
    for hidden in (humans.token, humans.payload_key, secret.get_secret_value(), "/callbacks/"):
        assert hidden.encode() not in held


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["no-checkpointer", "no-thread"])
async def test_graph_without_a_checkpointer_is_refused(bench: Bench, people: People, saver: Any) -> None:
    """A graph that could not be resumed raises an error before a task is created."""

    async def node(state: State) -> State:
        await bench.ask("a")
        return {}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    compiled = builder.compile(checkpointer=saver)
    with pytest.raises((SettingsError, ValueError), match=r"(?i)checkpointer"):
        await compiled.ainvoke({"answers": []}, bench.config if saver is None else {})
    assert await people.find(f"a {bench.thread_id}", count=0) == []


async def test_task_of_an_earlier_run_is_cancelled_when_the_relay_refuses(humans: HumansServer, people: People) -> None:
    """If the relay is down at the first run and refuses at the next, the task is cancelled."""
    question, port = f"Orphaned? {uuid.uuid4().hex}", free_port()
    human_tasks = HumanTasks(settings_for(humans, f"http://127.0.0.1:{port}"), patience=1)
    relay, status = FastAPI(), [503]

    @relay.get("/waits/asked")
    async def asked() -> dict[str, None]:
        return {"task_id": None}

    @relay.put("/waits/{task_id}")
    async def register(task_id: str) -> Response:
        return JSONResponse({"error": "RELAY"}, status[0])

    async def node(state: State) -> State:
        await await_human(task=question, response_schema=Decision, human_tasks=human_tasks)
        return {}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": uuid.uuid4().hex}}
    async with served(relay, port, log_level="critical"):
        with pytest.raises(ServerUnreachableError):
            await graph.ainvoke({"answers": []}, config)
        (task,) = await people.find(question)
        assert task["status"] == "created"
        status[0] = 422
        with pytest.raises(RequestRefusedError):
            await graph.ainvoke(None, config)
    assert (await people.task(task["id"]))["status"] == "cancelled"
