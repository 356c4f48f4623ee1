"""The checkpoint cache: what it does itself, what it leaves to the saver, and when its content expires."""

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from awaithumans_adapters.langgraph.graph_engine.stored_thread.answers import StoredAnswers
from awaithumans_adapters.langgraph.graph_engine.stored_thread.checkpoint_cache import (
    BRANCH_FRESH_SECONDS,
    FRESH_SECONDS,
    CheckpointCache,
)
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
def cache(saver: CountingSaver, clock: ManualClock) -> CheckpointCache:
    return CheckpointCache(saver, clock)


def add(saver: BaseCheckpointSaver[Any], ns: str = "") -> str:
    """Add a checkpoint and return its id."""
    checkpoint = empty_checkpoint()
    saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ns}}, checkpoint, {}, {})
    return checkpoint["id"]


def latest(cache: CheckpointCache) -> str:
    """Return the id of the checkpoint that a run would continue from."""
    saved = cache.get_tuple(ROOT)
    assert saved is not None
    return saved.checkpoint["id"]


def test_thread_is_read_once(saver: CountingSaver, cache: CheckpointCache) -> None:
    """Repeated reads of a thread reach the saver once."""
    first = latest(cache)
    add(saver)
    assert latest(cache) == first
    assert saver.reads == 1


async def test_sync_and_async_reads_share_the_cache(saver: CountingSaver, cache: CheckpointCache) -> None:
    """A checkpoint read by a sync method is not read again by an async one."""
    first = latest(cache)
    saved = await cache.aget_tuple(ROOT)
    assert saved is not None
    assert saved.checkpoint["id"] == first
    assert saver.reads == 1


def test_cached_checkpoint_is_copied(cache: CheckpointCache) -> None:
    """A graph changes a checkpoint that it shows, and the run that continues from it must not see that."""
    for _ in range(2):
        shown = cache.get_tuple(ROOT)
        assert shown is not None
        shown.checkpoint["channel_values"]["changed"] = True
    cache.end()
    handed = cache.get_tuple(ROOT)
    assert handed is not None
    assert handed.checkpoint["channel_values"] == {}


def test_run_starts_from_the_cache_and_then_reads(saver: CountingSaver, cache: CheckpointCache) -> None:
    """A run uses the cached checkpoint for its start and the saver afterwards."""
    first = latest(cache)
    cache.end()
    assert latest(cache) == first
    second = add(saver)
    assert latest(cache) == second
    assert latest(cache) == second


@pytest.mark.parametrize(
    ("channel", "handed_on"), [("__interrupt__", True), ("__resume__", True), ("__return__", True), ("done", False)]
)
def test_results_of_nodes_are_read_again(
    saver: CountingSaver, cache: CheckpointCache, channel: str, *, handed_on: bool
) -> None:
    """A graph applies results to the values that it gets, and a reducer may change these in place."""
    saved = saver.get_tuple(ROOT)
    assert saved is not None
    saver.put_writes(saved.config, [(channel, "written")], "task")
    latest(cache)
    cache.end()
    saver.reads = 0
    latest(cache)
    assert saver.reads == (0 if handed_on else 1)


def test_expired_checkpoint_is_read_again(saver: CountingSaver, cache: CheckpointCache, clock: ManualClock) -> None:
    """A change of the thread by another process is seen."""
    latest(cache)
    second = add(saver)
    clock.now = FRESH_SECONDS * 2
    cache.end()
    assert latest(cache) == second


async def test_thread_is_read_again_after_a_slow_write(
    saver: CountingSaver, cache: CheckpointCache, clock: ManualClock
) -> None:
    """A checkpoint that was read before a slow write is too old."""
    latest(cache)
    second = add(saver)
    clock.now = FRESH_SECONDS * 2
    cache.end(StoredAnswers([]))
    saved = await cache.aget_tuple(ROOT)
    assert saved is not None
    assert saved.checkpoint["id"] == second


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
def test_subgraph_of_the_current_step_is_cached_once(
    saver: CountingSaver, cache: CheckpointCache, clock: ManualClock, graph: str, seconds: float, *, handed_on: bool
) -> None:
    """A subgraph's checkpoint in the current step is used once, and one that persists between runs is read again."""
    child: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": graph}}
    first = add(saver, graph)
    cache.get_tuple(child)
    cache.end()
    second = add(saver, graph)
    clock.now = seconds
    for expected in (first if handed_on else second, second):
        saved = cache.get_tuple(child)
        assert saved is not None
        assert saved.checkpoint["id"] == expected


def test_earlier_checkpoints_are_not_cached(saver: CountingSaver, cache: CheckpointCache) -> None:
    """A run starts only from a latest checkpoint."""
    earlier: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": add(saver)}}
    cache.get_tuple(earlier)
    cache.end()
    saver.reads = 0
    cache.get_tuple(earlier)
    assert saver.reads == 1


def test_thread_without_checkpoints_has_no_latest_one(cache: CheckpointCache) -> None:
    """The cache returns none, both while it fills and while a run starts from it."""
    nowhere: RunnableConfig = {"configurable": {"thread_id": "none", "checkpoint_ns": ""}}
    assert cache.get_tuple(nowhere) is None
    cache.end()
    assert cache.get_tuple(nowhere) is None


def test_other_methods_are_those_of_the_saver(saver: CountingSaver, cache: CheckpointCache) -> None:
    """Methods with a default in the base class use the saver's own version, too."""
    shown: Any = cache
    assert shown.own == "the saver's"
    assert shown.serde is saver.serde
    for name in vars(BaseCheckpointSaver):
        if not name.startswith("_") and name not in vars(CheckpointCache) and callable(getattr(saver, name)):
            assert getattr(shown, name).__self__ is saver, name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = shown.nothing_like_it


def test_cache_is_a_checkpointer(cache: CheckpointCache) -> None:
    """LangGraph accepts only a checkpointer in a config."""
    assert isinstance(cache, BaseCheckpointSaver)
