"""Delivers answers to threads of in-process graphs, one at a time for each thread.

It reads the facts of a thread, has them classified, and does what the rule for the case says.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never
from weakref import WeakValueDictionary

from langgraph.types import RetryPolicy

from awaithumans_adapters.langgraph.delivery.classification import Case, Snapshot, read_case
from awaithumans_adapters.langgraph.delivery.failed_runs import FailedRuns, GraphFailedError
from awaithumans_adapters.langgraph.delivery.history import SEARCH_SECONDS, Searches, SearchUnfinishedError
from awaithumans_adapters.langgraph.delivery.rules import (
    Action,
    error_for,
    orphan_reason,
    read_to_act,
    reason_for,
    rule_of,
)
from awaithumans_adapters.langgraph.delivery.seen_threads import MAX_REMEMBERED, SeenThreads
from awaithumans_adapters.langgraph.graph_engine.events import Events
from awaithumans_adapters.langgraph.graph_engine.facts import Candidate, GraphFacts
from awaithumans_adapters.langgraph.graph_engine.graphs import Graphs
from awaithumans_adapters.langgraph.graph_engine.run import ThreadRun
from awaithumans_adapters.langgraph.graph_engine.slots import Slots
from awaithumans_adapters.langgraph.graph_engine.stored_thread.checkpoint_cache import FRESH_SECONDS
from awaithumans_adapters.langgraph.graph_engine.stored_thread.question import Question
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread
from awaithumans_core.engine import TargetNotReady
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import RunRecord

MAX_STARTING = 8
"""Number of threads that are read and resumed concurrently while their cached checkpoints are fresh.

If hundreds were started at once, each thread would have to be read again, because the reads and writes of the others
would come in between. A run that takes longer than that gives up its slot and continues concurrently.
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a delivery that the application is informed about."""

    thread: StoredThread
    """The thread."""
    not_taken: str | None = None
    """Why the thread did not take the answer and never will. None: it took the answer."""


class Deliveries:
    """Delivers answers, and remembers what this process has done for each of them.

    Args:
        graphs: The graphs whose threads are resumed.
        retry: The retry policy of the graphs' owner.
        running_seconds: Time after which nodes that run beside a question are assumed to have died.
    """

    def __init__(self, graphs: Graphs, retry: RetryPolicy | None, running_seconds: float) -> None:
        self._graphs = graphs
        self._running_seconds = running_seconds
        self._slots = Slots(MAX_STARTING, FRESH_SECONDS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failed = FailedRuns(retry)
        self._searches = Searches()
        self._seen = SeenThreads()
        self._running_since: dict[str, float] = {}
        """When nodes were first seen that run beside a question, by the route's digest."""
        self._cut_short: set[str] = set()
        """Digests of the answers whose last run raised an exception that is not a recorded failure of the graph."""
        self._delivered: OrderedDict[str, None] = OrderedDict()
        """Digests of the answers that were delivered recently.

        Checkpoint retention may have removed every trace of them from the thread.
        """

    async def deliver(
        self,
        route: Route,
        outcome: Outcome,
        runs: RunRecord,
        events: Events | None,
        *,
        redriven: bool,
        run_ended: bool,
    ) -> Ended:
        """Bring the thread to the point where it has taken the answer and run.

        Args:
            route: The route of the question.
            outcome: Its answer.
            runs: Where each run is recorded before it starts.
            events: Receives the stream parts while the thread runs.
            redriven: Whether an operator redrives the answer.
            run_ended: Whether the run with this answer ended, and only the application could not be informed.

        Raises:
            TargetGone, TargetNotReady, Exception: as in `GraphEngine.deliver`.
        """
        digest = route.digest
        lock = self._locks.setdefault(route.target["thread_id"], asyncio.Lock())
        # LangGraph has no lock on a thread: two concurrent resumes would both run the rest.
        async with lock, self._slots.slot():
            known = self._unread_snapshot(route, runs, redriven=redriven, run_ended=run_ended)
            try:
                ended = await self._act_on_case(route, outcome, runs, events, known)
            except TargetNotReady:
                raise
            except GraphFailedError as failed:
                self._running_since.pop(digest, None)
                raise self._failed.verdict(route, failed) from failed
            except BaseException:
                self._running_since.pop(digest, None)
                self._cut_short.add(digest)
                raise
            self._running_since.pop(digest, None)
            self._cut_short.discard(digest)
            self._failed.forget(route)
            self._delivered[digest] = None
            if len(self._delivered) > MAX_REMEMBERED:
                self._delivered.popitem(last=False)
            return ended

    async def _act_on_case(
        self, route: Route, outcome: Outcome, runs: RunRecord, events: Events | None, known: Snapshot
    ) -> Ended:
        facts = self._facts(route)

        async def read() -> tuple[Case, Snapshot]:
            facts.renew_cache()
            return await read_case(facts, known, route.idempotency_key)

        def run() -> ThreadRun:
            return facts.of.run(runs, events, partial(self._graphs.context, facts.of.thread.name, facts.of.thread.id))

        while True:
            with facts.cached():
                case, found = await read_to_act(read)
                rule, thread = rule_of(case), facts.of.thread
                match rule.action:
                    case Action.RESUME:
                        await run().resume(facts.of.waiting, outcome)
                        return Ended(thread)
                    case Action.FINISH:
                        return Ended(thread)
                    case Action.RUN_ON:
                        await run().run_on(settled=rule.settled)
                        return Ended(thread)
                    case Action.RUN_ON_TO_QUESTION:
                        await run().run_on(settled=rule.settled)
                        known = known._replace(was_run_on=True)
                    case Action.PARK_NOT_TAKEN:
                        return Ended(thread, not_taken=reason_for(case, found))
                    case Action.PARK_FAILED:
                        raise GraphFailedError(found.failed or "")
                    case Action.PARK | Action.TRY_LATER | Action.TRY_LATER_BUSY | Action.REFUSE:
                        raise error_for(case, found)
                    case _:
                        assert_never(rule.action)

    def _unread_snapshot(self, route: Route, runs: RunRecord, *, redriven: bool, run_ended: bool) -> Snapshot:
        return Snapshot(
            redriven=redriven,
            may_retry=self._failed.may_run_again,
            run_ended=run_ended,
            run_cut_short=route.digest in self._cut_short,
            delivered_before=runs.started or route.digest in self._delivered,
            thread_id=route.target["thread_id"],
            where=str(self._graphs),
            not_yet=self._not_yet(route),
        )

    async def orphaned(self, route: Route) -> str | None:
        """Return why the caller will never take an answer of the relay, or None; see `GraphEngine.orphaned`."""
        facts = self._facts(route, seconds=SEARCH_SECONDS)

        async def read() -> tuple[Case, Snapshot]:
            with facts.cached():
                return await read_case(facts, Snapshot(answer_known=False), route.idempotency_key)

        try:
            return await orphan_reason(read)
        except SearchUnfinishedError:
            return None

    def _facts(self, route: Route, *, seconds: float | None = None) -> GraphFacts:
        return GraphFacts(
            self._candidates(route, seconds),
            self._seen,
            route.idempotency_key,
            running_seconds=self._running_seconds,
            running_since=partial(self._running_since.setdefault, route.digest),
        )

    def _candidates(self, route: Route, seconds: float | None) -> Sequence[Candidate]:
        return [
            Candidate(
                thread,
                Question(
                    thread,
                    route.idempotency_key,
                    asked_at=route.asked_at,
                    so_far=self._searches.of(thread.name, route.digest),
                    seconds=seconds,
                ),
            )
            for thread in self._graphs.threads_of(route)
        ]

    def _not_yet(self, route: Route) -> str:
        return (
            f"no thread {route.target['thread_id']!r} with this question in {self._graphs} yet; "
            "do the relay and the calling process share the checkpointer? If they do, the process may have stopped "
            "before LangGraph stored the interrupt: then continue the thread with graph.invoke(None, config)"
        )
