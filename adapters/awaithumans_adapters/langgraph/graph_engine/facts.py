"""Reads the facts by which a question of an in-process graph is classified.

A thread may belong to any of the engine's graphs if its route does not name one. So each fact is read from all of them,
and the reader notes to which one the case belongs.
"""

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, assert_never

from langgraph.checkpoint.base import CheckpointTuple

from awaithumans_adapters.langgraph.delivery.classification import Fact, Snapshot
from awaithumans_adapters.langgraph.delivery.seen_threads import SeenThreads
from awaithumans_adapters.langgraph.graph_engine.events import Events
from awaithumans_adapters.langgraph.graph_engine.run import ThreadRun
from awaithumans_adapters.langgraph.graph_engine.stored_thread.answers import Waiting
from awaithumans_adapters.langgraph.graph_engine.stored_thread.question import BY_PRECEDENCE, Question
from awaithumans_adapters.langgraph.graph_engine.stored_thread.step import Step
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread
from awaithumans_core.runs import RunRecord


class Candidate:
    """A graph to which the thread may belong, with the thread and the question as this graph sees them."""

    def __init__(self, thread: StoredThread, question: Question) -> None:
        self.thread = thread
        self.question = question
        self.step = Step(thread)
        self.waiting: Sequence[Waiting] = ()
        """The interrupts that wait for the answer, as they were last read."""
        self.recorded_in: Sequence[CheckpointTuple] | None = None
        """The checkpoints in which the question was asked, as they were last read."""
        self.answered_in: CheckpointTuple | None = None
        """The one of them in which the answer was taken, as it was last read."""

    def run(self, runs: RunRecord, events: Events | None, context: Callable[[], Awaitable[Any]]) -> ThreadRun:
        """Return the object that runs the thread."""
        return ThreadRun(self.thread, self.question, self.step, runs, events, context)

    async def find_answer(self) -> bool:
        """Read the checkpoints in which the question was asked. Return whether one of them holds its answer."""
        self.recorded_in = await self.question.recorded_in()
        self.answered_in = await self.question.answered_in(self.recorded_in)
        return self.answered_in is not None


class GraphFacts:
    """Reads the facts of one thread for `read_case`, from all graphs to which the thread may belong.

    Args:
        candidates: These graphs.
        seen: The threads that the engine has seen.
        key: The question's idempotency key.
        running_seconds: Time after which nodes that run beside the question are assumed to have died.
        running_since: When such nodes were first seen. Called with monotonic time only if there are any.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        seen: SeenThreads,
        key: str,
        *,
        running_seconds: float,
        running_since: Callable[[float], float],
    ) -> None:
        self.candidates = candidates
        self.of = candidates[0]
        """The graph to which the case belongs."""
        self._seen = seen
        self._key = key
        self._running_seconds = running_seconds
        self._running_since = running_since

    @contextmanager
    def cached(self) -> Generator[None]:
        """Cache the checkpoints of the thread within the block, so that none is read twice."""
        self.renew_cache()
        try:
            yield
        finally:
            for each in self.candidates:
                each.thread.drop_cache()

    def renew_cache(self) -> None:
        """Read the checkpoints anew from now on, and cache those. Only within a block of `cached`."""
        for each in self.candidates:
            each.thread.renew_cache()

    async def read(self, fact: Fact, found: Snapshot) -> Snapshot:
        """Return the snapshot with this fact added."""
        match fact:
            case Fact.THREAD:
                return await self._thread(found)
            case Fact.SHOWN:
                return await self._shown(found)
            case Fact.RUNNING_BESIDE:
                return self._running(found, await self.of.step.running_nodes())
            case Fact.FAILED_BESIDE:
                return found._replace(failed_beside=await self.of.step.nodes_failed_with_answer())
            case Fact.UNSTORED_BESIDE:
                return found._replace(unstored_beside=await self.of.step.unstored_nodes(self._key))
            case Fact.ANSWERED | Fact.EVER_SHOWN:
                return await self._history(found)
            case Fact.STOPPED:
                return await self._stopped(found)
            case Fact.FAILED:
                return await self._failed(found)
            case Fact.NEXT_QUESTION:
                return found._replace(next_question=await self.of.step.next_question())
            case Fact.QUEUED:
                return found._replace(queued=await self.of.question.queued(self.of.recorded_in or ()))
            case Fact.SHOWS_ANSWERED:
                return found._replace(shows_answered=await self.of.step.shows_answered(self._key))
            case Fact.NODE_MISSING:
                missing = [await each.question.node_missing() for each in self.candidates]
                return found._replace(node_missing=all(missing))
            case Fact.UNTAKEN:
                return await self._untaken(found)
            case Fact.OTHERS_SHOWN:
                return found._replace(others_shown=bool((await self.of.thread.state()).interrupts))
            case Fact.REMOVED:
                return found._replace(removed=await self._first([each.question.removed for each in self.candidates]))
            case _:
                assert_never(fact)

    async def _thread(self, found: Snapshot) -> Snapshot:
        exists = await self._first([each.thread.exists for each in self.candidates])
        deleted = self._seen.was_deleted(self.of.thread.id, exists=exists)
        return found._replace(exists=exists, deleted=deleted, hidden="", run_active=False)

    async def _first(self, facts: Sequence[Callable[[], Awaitable[bool]]]) -> bool:
        """Whether a fact is true of one of the graphs. The case then belongs to the first of them."""
        for each, is_true in zip(self.candidates, facts, strict=True):
            if await is_true():
                self.of = each
                return True
        return False

    async def _shown(self, found: Snapshot) -> Snapshot:
        for each in self.candidates:
            each.waiting = await each.question.waiting()
        showing = [each for each in self.candidates if each.waiting]
        if showing:
            self.of = showing[0]
        return found._replace(shown_by=tuple(each.thread.name for each in showing))

    def _running(self, found: Snapshot, running: str) -> Snapshot:
        now = time.monotonic()
        timed_out = bool(running) and now - self._running_since(now) >= self._running_seconds
        return found._replace(running_beside=running, running_timed_out=timed_out)

    async def _history(self, found: Snapshot) -> Snapshot:
        """Read whether the question was asked and answered. A graph to which neither applies is another one's."""
        for each in self.candidates:
            if await each.find_answer() or each.question.asked_in(each.recorded_in or ()):
                self.of = each
                return found._replace(answered=each.answered_in is not None, ever_shown=True)
        return found._replace(answered=False, ever_shown=False)

    async def _stopped(self, found: Snapshot) -> Snapshot:
        answered_in = self.of.answered_in
        if answered_in is None:
            raise ValueError("this fact is read of an answered question only")
        stopped = [each for each in self.candidates if await each.step.stopped_since(answered_in)]
        if stopped:
            self.of = stopped[0]
        return found._replace(stopped_in=tuple(each.thread.name for each in stopped))

    async def _failed(self, found: Snapshot) -> Snapshot:
        if not found.stopped_in:  # after retention, the thread of an answer that was delivered before
            await self._first([each.thread.exists for each in self.candidates])
        return found._replace(failed=await self.of.step.failures())

    async def _untaken(self, found: Snapshot) -> Snapshot:
        candidates = [self.of] if found.ever_shown else self.candidates
        states = [(await each.question.untaken(each.recorded_in or ()), each) for each in candidates]
        state, self.of = min(states, key=lambda read: BY_PRECEDENCE.index(read[0]))
        return found._replace(untaken=state)
