"""Threads with an open question that were deleted, pruned, copied or cancelled."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, await_human_sync
from awaithumans_core import Outcome, Route, SettingsError, TargetGone, TargetNotReady
from awaithumans_core.runs import RunsInMemory
from tests.support.graph_bench import Bench, State
from tests.support.workflows import Decision


class PruningSaver(InMemorySaver):
    """A saver that on `prune_thread` keeps only each graph's latest checkpoint, as a retention job does."""

    def prune_thread(self, thread_id: str) -> None:
        for graph, checkpoints in self.storage[thread_id].items():
            for old in sorted(checkpoints)[:-1]:
                del checkpoints[old]
                self.writes.pop((thread_id, graph, old), None)


@pytest.fixture
def saver() -> PruningSaver:
    return PruningSaver()


def asking(bench: Bench, name: str = "a") -> Any:
    async def node(state: State) -> State:
        return {"answers": [(name, (await bench.ask(name)).approved)]}

    return node


async def test_question_of_a_deleted_thread_is_orphaned(bench: Bench) -> None:
    """A thread seen before and missing at two checks was deleted; one never seen may be stored elsewhere."""
    bench.graph(node=asking(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    route, never_seen = await bench.route("a"), GraphEngine({"bench": bench.compiled})
    assert await bench.engine.orphaned(route) is None
    await bench.saver.adelete_thread(bench.thread_id)
    assert await bench.engine.orphaned(route) is None
    assert "deleted" in (await bench.engine.orphaned(route) or "")
    assert [await never_seen.orphaned(route) for _ in range(3)] == [None] * 3


async def test_answer_to_a_deleted_thread_is_parked(bench: Bench) -> None:
    """Once a retry confirms the deletion, the wait is parked with that reason."""
    bench.graph(node=asking(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    assert await bench.engine.orphaned(await bench.route("a")) is None
    await bench.saver.adelete_thread(bench.thread_id)
    with pytest.raises(TargetNotReady):
        await bench.give("a", True)
    with pytest.raises(TargetGone, match="deleted"):
        await bench.give("a", True)
    assert bench.acts == []


async def test_redelivery_after_retention_is_recognised_as_taken(bench: Bench) -> None:
    """The engine recognises its own delivery, and after a restart the record of started runs."""
    bench.graph(node=asking(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    task = await bench.task("a")
    route = await bench.route("a")
    yes = Outcome.model_validate(
        {
            "task_id": task["id"],
            "idempotency_key": route.idempotency_key,
            "status": "completed",
            "response": {"approved": True},
        }
    )
    recorded = RunsInMemory()
    await bench.engine.deliver_recorded(route, yes, recorded, redriven=False)
    bench.saver.prune_thread(bench.thread_id)
    for known in (route, replace(route, asked_at=None)):
        await bench.engine.deliver(known, yes)
        await GraphEngine({"bench": bench.compiled}).deliver_recorded(known, yes, recorded, redriven=False)
    assert bench.acts == ["act"]
    assert await bench.answers() == {("a", True)}


async def test_pruned_question_of_a_subgraph_that_continued_is_orphaned(bench: Bench) -> None:
    """The task is cancelled if the subgraph continued and was pruned, although its outer graph did not move."""

    async def swallows(state: State) -> State:
        with suppress(Exception):
            await bench.ask("a")
        return {}

    inner = StateGraph(State).add_sequence([("swallows", swallows), ("waits", asking(bench, "b"))])
    bench.use(StateGraph(State).add_node("sub", inner.add_edge(START, "swallows").compile()).add_edge(START, "sub"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    bench.saver.prune_thread(bench.thread_id)
    assert "moved on" in (await bench.engine.orphaned(await bench.route("a")) or "")
    assert await bench.engine.orphaned(await bench.route("b")) is None
    with pytest.raises(TargetGone, match="moved on"):
        await bench.give("a", True)
    await bench.give("b", True)
    assert await bench.answers() == {("b", True)}


async def test_question_whose_checkpoint_was_pruned_is_superseded(bench: Bench) -> None:
    """If new input replaced the question and retention removed it, its task is cancelled and its answer parked."""
    bench.graph(node=asking(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    old, task = await bench.route("a"), await bench.task("a")
    bench.saver.prune_thread(bench.thread_id)
    assert await bench.engine.orphaned(old) is None
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    bench.saver.prune_thread(bench.thread_id)
    assert "moved on" in (await bench.engine.orphaned(old) or "")
    with pytest.raises(TargetGone, match="moved on"):
        await bench.deliver(old.idempotency_key, True, task["id"])
    await bench.give("a", True)
    assert bench.acts == ["act"]


async def test_copied_thread_asks_its_own_question(bench: Bench) -> None:
    """The copy of a thread with an open question asks anew when it runs, and each takes its own answer."""
    bench.graph(node=asking(bench))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    original, original_id = await bench.route("a"), (await bench.task("a"))["id"]
    copy_id = f"{bench.thread_id}-copy"
    bench.saver.storage[copy_id] = {
        graph: dict(checkpoints) for graph, checkpoints in bench.saver.storage[bench.thread_id].items()
    }
    for (thread_id, *place), writes in list(bench.saver.writes.items()):
        if thread_id == bench.thread_id:
            bench.saver.writes[copy_id, *place] = dict(writes)
    for (thread_id, *place), blob in list(bench.saver.blobs.items()):
        if thread_id == bench.thread_id:
            bench.saver.blobs[copy_id, *place] = blob
    config: Any = {"configurable": {"thread_id": copy_id}}
    await bench.compiled.ainvoke(None, config)
    copied_task = await bench.task("a")
    assert copied_task["id"] != original_id
    copied = Route("langgraph", {"thread_id": copy_id}, copied_task["idempotency_key"])

    async def give(route: Route, approved: bool) -> None:  # noqa: FBT001
        outcome = {"task_id": "t", "idempotency_key": route.idempotency_key, "status": "completed"}
        await bench.engine.deliver(route, Outcome.model_validate(outcome | {"response": {"approved": approved}}))

    await give(copied, False)
    await give(original, True)
    assert [tuple(each) for each in (await bench.compiled.aget_state(config)).values["answers"]] == [("a", False)]
    assert await bench.answers() == {("a", True)}


@pytest.mark.parametrize("sync", [False, True])
async def test_subgraph_without_checkpoints_is_refused(bench: Bench, *, sync: bool) -> None:
    """A subgraph with checkpointer=False restarts on resume and would ask anew each time."""

    def ask_sync(state: State) -> State:
        await_human_sync(task=f"a {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks)
        return {}

    inner = StateGraph(State)
    inner.add_node("ask", ask_sync if sync else asking(bench))
    inner.add_edge(START, "ask")
    bench.graph(sub=inner.compile(checkpointer=False))
    with pytest.raises(SettingsError, match="checkpointer=False"):
        await bench.compiled.ainvoke({"answers": []}, bench.config)
    assert await bench.people.find(f"a {bench.thread_id}", count=0) == []


async def test_cancelling_a_thread_cancels_its_open_tasks(bench: Bench) -> None:
    """All open questions of the thread are cancelled; answered ones and those of other threads are kept."""
    bench.graph(a=asking(bench, "a"), b=asking(bench, "b"), c=asking(bench, "c"))
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    await bench.give("c", True)
    ended = await bench.engine.cancel_thread(bench.thread_id, human_tasks=bench.human_tasks)
    assert sorted(outcome.status for outcome in ended) == ["cancelled", "cancelled"]
    assert [(await bench.task(name))["status"] for name in ("a", "b")] == ["cancelled", "cancelled"]
    assert await bench.engine.cancel_thread("unknown", human_tasks=bench.human_tasks) == []
