"""The look at a thread: what it does itself, what it leaves to the saver, and when it stops remembering."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from awaithumans_adapters.langgraph.graph_engine.checkpoint_cache import (
    BRANCH_FRESH_SECONDS,
    FRESH_SECONDS,
    CheckpointCache,
)
from awaithumans_adapters.langgraph.graph_engine.stored_answers import StoredAnswers
from tests.support.clocks import ManualClock
from tests.support.counting_savers import CountingSaver

ROOT: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def saver() -> CountingSaver:
    saver = CountingSaver()
    add(saver)
    return saver


@pytest.fixture
def look(saver: CountingSaver, clock: ManualClock) -> CheckpointCache:
    return CheckpointCache(saver, clock)


def add(saver: BaseCheckpointSaver[Any], ns: str = "") -> str:
    """One checkpoint more; its id."""
    checkpoint = empty_checkpoint()
    saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ns}}, checkpoint, {}, {})
    return checkpoint["id"]


def latest(look: CheckpointCache) -> str:
    """The id of the checkpoint a graph would go on from."""
    saved = look.get_tuple(ROOT)
    assert saved is not None
    return saved.checkpoint["id"]


def test_reads_once_while_it_looks(saver: CountingSaver, look: CheckpointCache) -> None:
    first = latest(look)
    add(saver)
    assert latest(look) == first
    assert saver.reads == 1


async def test_reads_once_for_both_kinds_of_graph(saver: CountingSaver, look: CheckpointCache) -> None:
    """What a sync method has read, an async one does not read again."""
    first = latest(look)
    saved = await look.aget_tuple(ROOT)
    assert saved is not None
    assert saved.checkpoint["id"] == first
    assert saver.reads == 1


def test_what_is_shown_is_a_copy(look: CheckpointCache) -> None:
    """A graph that shows a checkpoint changes it; the run that goes on from it sees none of that."""
    for _ in range(2):
        shown = look.get_tuple(ROOT)
        assert shown is not None
        shown.checkpoint["channel_values"]["changed"] = True
    look.end()
    handed = look.get_tuple(ROOT)
    assert handed is not None
    assert handed.checkpoint["channel_values"] == {}


def test_the_run_starts_from_what_was_seen_and_then_reads(saver: CountingSaver, look: CheckpointCache) -> None:
    first = latest(look)
    look.end()
    assert latest(look) == first
    second = add(saver)
    assert latest(look) == second
    assert latest(look) == second


@pytest.mark.parametrize(
    ("channel", "handed_on"), [("__interrupt__", True), ("__resume__", True), ("__return__", True), ("done", False)]
)
def test_results_of_nodes_are_read_again(
    saver: CountingSaver, look: CheckpointCache, channel: str, *, handed_on: bool
) -> None:
    """A graph that shows the thread applies them to the values it was handed, which a reducer may change in place."""
    saved = saver.get_tuple(ROOT)
    assert saved is not None
    saver.put_writes(saved.config, [(channel, "written")], "task")
    latest(look)
    look.end()
    saver.reads = 0
    latest(look)
    assert saver.reads == (0 if handed_on else 1)


def test_an_old_look_is_not_started_from(saver: CountingSaver, look: CheckpointCache, clock: ManualClock) -> None:
    """Whoever moved the thread on meanwhile is seen."""
    latest(look)
    second = add(saver)
    clock.now = FRESH_SECONDS * 2
    look.end()
    assert latest(look) == second


async def test_a_run_reads_the_thread_once_the_answers_are_stored(
    saver: CountingSaver, look: CheckpointCache, clock: ManualClock
) -> None:
    """What was read before a slow write is old by then."""
    latest(look)
    accept = asyncio.Event()

    async def store() -> None:
        await accept.wait()

    look.end(StoredAnswers([], asyncio.create_task(store())))
    reading = asyncio.create_task(look.aget_tuple(ROOT))
    await asyncio.sleep(0.01)
    assert not reading.done()
    second = add(saver)
    clock.now = FRESH_SECONDS * 2
    accept.set()
    saved = await reading
    assert saved is not None
    assert saved.checkpoint["id"] == second


async def test_a_run_that_gives_up_ends_the_storing(look: CheckpointCache) -> None:
    storing = asyncio.create_task(asyncio.Event().wait())
    stored = StoredAnswers([], cast("asyncio.Task[None]", storing))
    look.end(stored)
    reading = asyncio.create_task(look.aget_tuple(ROOT))
    await asyncio.sleep(0.01)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert storing.cancelled()
    assert await stored.refused()


@pytest.mark.parametrize(
    ("graph", "seconds", "handed_on"),
    [
        ("child:1", 0.0, True),
        ("child:1", FRESH_SECONDS * 2, True),
        ("child:1", BRANCH_FRESH_SECONDS * 2, False),
        ("child:1|3", 0.0, True),
        ("memory_of_its_own", 0.0, False),
    ],
)
def test_run_starts_from_a_subgraph_that_was_read(
    saver: CountingSaver, look: CheckpointCache, clock: ManualClock, graph: str, seconds: float, *, handed_on: bool
) -> None:
    """A subgraph in a task of the current step is handed out once; one that lives from run to run is read again."""
    child: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": graph}}
    first = add(saver, graph)
    look.get_tuple(child)
    look.end()
    second = add(saver, graph)
    clock.now = seconds
    for expected in (first if handed_on else second, second):
        saved = look.get_tuple(child)
        assert saved is not None
        assert saved.checkpoint["id"] == expected


def test_earlier_checkpoints_are_read_by_the_run(saver: CountingSaver, look: CheckpointCache) -> None:
    """Only a latest checkpoint is where a run starts."""
    earlier: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": add(saver)}}
    look.get_tuple(earlier)
    look.end()
    saver.reads = 0
    look.get_tuple(earlier)
    assert saver.reads == 1


def test_a_thread_without_checkpoints(look: CheckpointCache) -> None:
    nowhere: RunnableConfig = {"configurable": {"thread_id": "none", "checkpoint_ns": ""}}
    assert look.get_tuple(nowhere) is None
    look.end()
    assert look.get_tuple(nowhere) is None


def test_all_else_is_the_savers(saver: CountingSaver, look: CheckpointCache) -> None:
    """Also what the base class has: a saver's own way of writing, versions and serializer are used."""
    shown: Any = look
    assert shown.own == "the saver's"
    assert shown.serde is saver.serde
    for name in vars(BaseCheckpointSaver):
        if not name.startswith("_") and name not in vars(CheckpointCache) and callable(getattr(saver, name)):
            assert getattr(shown, name).__self__ is saver, name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = shown.nothing_like_it


def test_is_a_checkpointer(look: CheckpointCache) -> None:
    """LangGraph takes nothing else from a config."""
    assert isinstance(look, BaseCheckpointSaver)
