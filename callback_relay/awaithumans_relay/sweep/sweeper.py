"""Open waits -> a check of their tasks on their schedule, within a budget -> answered.

Law: no answer is lost because a callback is missing. A task completed by e-mail or in Slack sends none, and the relay
may have been down when one was sent. The sweep finds both.

When, how and at what cost tasks are checked is decided by `awaithumans_core.schedule`. Young waits are checked first,
whichever caller they belong to. A slow check does not delay the others, and a failed check is repeated soon.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from awaithumans_core import flow
from awaithumans_core.client import TaskClient
from awaithumans_core.deleted_tasks import RULE, Rule
from awaithumans_core.engine import Engine
from awaithumans_core.errors import (
    InvalidTaskError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskNotFoundError,
)
from awaithumans_core.flow import Patience
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.schedule import MAX_CHECK_SECONDS, SHARE, Costs, ListCost
from awaithumans_core.schedule.times import OVERLOOKED_SECONDS, PROBE_BACKOFF, RETRY_SECONDS
from awaithumans_relay.availability.server_causes import concerns_server
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.store import Store, Wait
from awaithumans_relay.sweep.deleted_tasks import Deletions
from awaithumans_relay.sweep.ended_tasks import EndedTasks
from awaithumans_relay.sweep.found_answers import FoundAnswers
from awaithumans_relay.sweep.lists import Lists
from awaithumans_relay.sweep.meter import Meter
from awaithumans_relay.sweep.orphans import Orphans
from awaithumans_relay.sweep.seen_tasks import SeenTasks
from awaithumans_relay.sweep.shortfall import ShortfallReport

logger = safe_logger("awaithumans.relay")

TICK_SECONDS = 0.5
"""Maximum seconds until the table is read again. Another relay may have registered a wait."""
MIN_TICK_SECONDS = 0.05
CLAIM_SECONDS = 0.1
"""Seconds between two claims while waits are due.

Checks are claimed a few at once, not one per transaction.
"""
MAX_REQUESTS = 8
"""Maximum number of concurrent requests. The server answers from one process."""
MAX_CHECKS = 32
"""Maximum number of concurrent checks. Those beyond the requests mostly wait for an engine to report on a caller."""

ODD_REPLY_BACKOFF = Backoff(first=RETRY_SECONDS, most=MAX_CHECK_SECONDS / 1.25)
"""Delay between two checks of a task with odd replies.

It grows, and with jitter never exceeds the schedule's maximum.
"""
LAPSED_REASON = (
    "the task's deadline is long past, and the awaithumans server still reports it as open: does its scheduler run? "
    "This wait will be deleted; a callback brings it back"
)
"""Reason of a parked wait whose task has not ended long after its deadline."""
MAX_ODD_TASKS = 10_000
"""Maximum number of tasks whose odd replies are counted. Beyond it, the oldest count is dropped and starts again."""


class Sweeper:
    """Checks the tasks of open waits until it is stopped.

    Args:
        store: The waits.
        client: Reads tasks. It should give up at once (`patience=0`), because the schedule is the retry.
        engines: Engines by name. Those that support it are asked whether a caller still waits.
        on_answer: Called after an answer was stored.
        observer: Notified of every check.
        rule: When a deleted task ends its waits.
        share: Share of the wall time that the requests of all relays together may take.
        lapsed_before: Epoch seconds. A wait whose deadline was earlier is parked if its task is still open. Default:
            none is parked.
    """

    def __init__(
        self,
        store: Store,
        client: TaskClient,
        engines: Mapping[str, Engine],
        *,
        on_answer: Callable[[], None],
        observer: Observer | None = None,
        rule: Rule = RULE,
        share: float = SHARE,
        lapsed_before: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        self._observer = observer or Observer(engines)
        self._checks = store.checks
        self._client = client
        self._on_answer = on_answer
        self._meter = Meter(store.checks.settle, share)
        self._costs = Costs()
        self._seen = SeenTasks()
        self._server = self._observer.health.server
        self._probes = 0
        """Number of probes sent since the server became unreachable."""
        self._orphans = Orphans(store.checks, store.queries, engines, self._observer.health)
        self._answers = FoundAnswers(store.intake, self._observer)
        self._lists = Lists(
            store.checks,
            client,
            self._meter,
            self._costs,
            self._answers,
            self._seen,
            self._observer.metrics,
            on_answer=on_answer,
            on_seen=self._seen_on_list,
        )
        self._ended_tasks = EndedTasks(store.checks, self._lists, self._costs, self._meter)
        self._shortfall = ShortfallReport(store.checks, self._meter, self._seen, self._observer)
        self._deletions = Deletions(store.missing_tasks, self._observer, on_answer=on_answer, rule=rule)
        self._lapsed_before = lapsed_before
        self._odd_replies: dict[str, int] = {}
        """Number of consecutive odd replies, by task."""
        self._requests = asyncio.Semaphore(MAX_REQUESTS)
        self._being_read: set[str] = set()
        """Tasks whose read is under way. A task that hangs must not take all requests."""
        self._backoff = Backoff(first=1.0, most=15.0)
        self._under_way: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Sweep while the block runs."""
        background = {"ahead": self._ended_tasks.running(), "shortfall": self._shortfall.running()}
        async with self._deletions.running(), beside(sweep=self._run(), **background):
            yield

    def callback_received(self, outcome: Outcome) -> None:
        """Note that a callback has arrived. If it was late, the sweep finds the others ahead of their callbacks."""
        self._ended_tasks.callback_received(outcome)

    async def _run(self) -> None:
        failures = 0
        try:
            while True:
                probing = self._server.unresponsive
                if probing:
                    self._probes += 1
                    await asyncio.sleep(PROBE_BACKOFF.delay(self._probes))
                try:
                    claimed, pause = await self._claim(probe=probing)
                    failures = 0
                    self._observer.health.store.responded()
                except Exception as error:
                    failures += 1
                    self._observer.store_failed(error)
                    await asyncio.sleep(self._backoff.delay(failures))
                    continue
                if claimed:
                    self._start(self._check_claimed(claimed, probe=probing))
                if probing and self._under_way:
                    await asyncio.wait(self._under_way)
                else:
                    await asyncio.sleep(pause)
                while len(self._under_way) >= MAX_CHECKS:
                    await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for check in self._under_way:
                check.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        check = asyncio.create_task(work)
        self._under_way.add(check)
        check.add_done_callback(self._under_way.discard)

    async def _claim(self, *, probe: bool) -> tuple[list[Wait], float]:
        """Claim the waits that are due, as many as the budget allows. Also return the seconds until the next claim."""
        due_at = await self._checks.next_due()
        left = math.inf if due_at is None else due_at - self._checks.clock()
        if left > 0:
            return [], min(TICK_SECONDS, max(MIN_TICK_SECONDS, left))
        if probe:
            await self._meter.wait_for_pause()
            return await self._checks.claim(1), CLAIM_SECONDS
        budget = await self._meter.wait_for_budget()
        affordable = max(1, int(budget / self._costs.read))
        return await self._checks.claim(min(affordable, MAX_CHECKS - len(self._under_way))), CLAIM_SECONDS

    async def _check_claimed(self, claimed: list[Wait], *, probe: bool) -> None:
        """Check waits by lists where that is cheaper, and the others each by a read. One read serves all on a task."""
        hinted = set[str]()
        if not probe:
            try:
                claimed, hinted = await self._lists.serve(claimed)
            except Exception:  # the store is unavailable
                logger.exception("check of %d tasks by lists failed", len(claimed))
        by_task: dict[str, list[Wait]] = {}
        for wait in claimed:
            by_task.setdefault(wait.task_id, []).append(wait)
        for task_id, waits in by_task.items():
            if task_id not in self._being_read:
                self._being_read.add(task_id)
                self._start(self._check(task_id, waits, probe=probe, hinted=task_id in hinted))

    def _seen_on_list(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Handle an open task that a list has shown: its callers may be gone, or its deadline long past."""
        self._deletions.present(outcome.task_id)
        now = self._checks.clock()
        if len(self._under_way) >= MAX_CHECKS:
            return
        due = [wait for wait in waits if self._seen.caller_due(wait, now, read=False)]
        if due:
            self._start(self._handle_listed(outcome, waits))

    async def _handle_listed(self, outcome: Outcome, waits: list[Wait]) -> None:
        try:
            await self._handle_open_task(outcome, waits)
        except Exception:  # the store is unavailable; the next check tries again
            logger.exception("check of task %s failed", outcome.task_id)

    async def _check(self, task_id: str, waits: list[Wait], *, probe: bool, hinted: bool) -> None:
        try:
            await self._check_task(task_id, waits, probe=probe, hinted=hinted)
        except Exception:  # the store is unavailable
            logger.exception("check of task %s failed", task_id)
            with suppress(Exception):
                await self._checks.postpone(waits, RETRY_SECONDS)
        finally:
            self._being_read.discard(task_id)

    async def _check_task(self, task_id: str, waits: list[Wait], *, probe: bool, hinted: bool) -> None:
        listed = self._costs.open(self._seen.status(task_id))
        try:
            outcome = await self._read(task_id, probe=probe)
            if outcome is not None:
                self._note_read(outcome, waits, listed if hinted else None)
                await self._decide(outcome, waits)
        except TaskNotFoundError:
            if hinted:
                listed.confirmed(_now(), right=True)
            self._note_success(task_id)
            await self._deletions.missing(task_id, waits)
        except InvalidTaskError as never:  # earlier releases accepted any text as a task id
            await self._park(waits, str(never))
        except (RequestRefusedError, ServerUnreachableError) as error:
            await self._checks.postpone(waits, self._note_failure(task_id, error))
        else:
            if outcome is None:
                await self._checks.postpone(waits, RETRY_SECONDS)

    async def _read(self, task_id: str, *, probe: bool) -> Outcome | None:
        """Return the task's record, or None when the server has become unreachable since the check began."""
        async with self._requests:
            await self._meter.wait_for_pause()
            if self._server.unresponsive and not probe:
                return None
            with self._meter.request(self._costs.read) as took:
                outcome = await self._client.get(task_id)
                self._costs.read_took(took())
        self._observer.metrics.task_checked()
        self._note_success(task_id)
        self._deletions.present(task_id)
        return outcome

    async def _decide(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Compare keys first, because only waits for this very question may decide what happens to its task."""
        outcome, matching, others = _split_by_question(outcome, waits)
        for wait in others:
            await self._checks.park(
                wait, reason=f"task {wait.task_id} is another question than the one this wait was registered for"
            )
        if outcome.terminal:
            await self._take(outcome, matching)
        elif matching:
            now = self._checks.clock()
            for wait in matching:
                self._seen.caller_due(wait, now, read=True)
            await self._handle_open_task(outcome, matching)

    async def _handle_open_task(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Handle an open task: cancel it if no caller exists any more, and park waits whose deadline is long past."""
        if why := await self._orphans.cancel_reason(waits):
            outcome = await self._cancel(outcome, waits)
            if outcome.terminal:
                logger.warning(
                    "orphaned task is closed: %s is %s (%s)",
                    outcome.task_id,
                    outcome.status,
                    why,
                    extra={"task_id": outcome.task_id},
                )
                await self._take(outcome, waits)
            else:
                await self._park(waits, f"{why}; its task was created for another caller and stays open")
            return
        if min(wait.deadline_at for wait in waits) < self._checks.clock():
            before = self._lapsed_before()
            await self._park([wait for wait in waits if wait.deadline_at < before], LAPSED_REASON)

    async def _cancel(self, outcome: Outcome, waits: Sequence[Wait]) -> Outcome:
        """Cancel a task that was created for one of these callers, and return its record.

        An answer takes precedence.
        """
        key = waits[0].route.idempotency_key
        marks = await self._orphans.marks(outcome.task_id, key)
        async with self._requests:
            with self._meter.request(2 * self._costs.read):
                closed = await self._client.run(flow.close_if_marked(outcome.task_id, key, marks, Patience(0)))
        return _with_key(closed, key)

    async def _park(self, waits: Sequence[Wait], reason: str) -> None:
        for wait in waits:
            await self._checks.park(wait, reason=reason)

    async def _take(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Store the outcome of a task that has ended."""
        if await self._answers.record(outcome, waits):
            self._on_answer()

    def _note_read(self, outcome: Outcome, waits: Sequence[Wait], hint: ListCost | None) -> None:
        """Learn from a read whether the lists were right about this task."""
        now, status = self._checks.clock(), self._seen.status(outcome.task_id)
        if hint is not None:
            hint.confirmed(_now(), right=outcome.terminal or outcome.status != status)
        if not outcome.terminal:
            self._seen.open(outcome, waits[0], now, listed=False)
            return
        postponed_at, lag = self._seen.ended(outcome.task_id), self._seen.lag
        ended = outcome.completed_at or outcome.timed_out_at
        if postponed_at is not None and lag is not None and ended is not None:
            overlooked = ended.timestamp() + lag < postponed_at - OVERLOOKED_SECONDS
            if overlooked:
                self._costs.ended.confirmed(_now(), right=False)

    def _note_success(self, task_id: str) -> None:
        self._odd_replies.pop(task_id, None)
        self._probes = 0
        self._server.succeeded()

    def _note_failure(self, task_id: str, error: RequestRefusedError | ServerUnreachableError) -> float:
        """Return the seconds after which a failed check is repeated."""
        if concerns_server(error):
            if self._server.state != "failing":
                logger.warning("check of task %s failed: %s", task_id, error, extra={"task_id": task_id})
            self._server.failed(error)
            rest = error.retry_after if isinstance(error, ServerUnreachableError) else 0.0
            self._meter.pause(rest)
            return max(RETRY_SECONDS, rest)
        count = self._odd_replies.pop(task_id, 0) + 1
        self._odd_replies[task_id] = count
        if len(self._odd_replies) > MAX_ODD_TASKS:
            del self._odd_replies[next(iter(self._odd_replies))]
        if count == 1:
            message = "check of task %s failed: %s; the task is read again at growing intervals"
            logger.warning(message, task_id, error, extra={"task_id": task_id})
        self._server.subject_failed(task_id, error)
        return ODD_REPLY_BACKOFF.delay(count)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _split_by_question(outcome: Outcome, waits: list[Wait]) -> tuple[Outcome, list[Wait], list[Wait]]:
    """Return the outcome with its key, the waits for its question, and those for another one, which are to be parked.

    A server may hide the key from this token. Then the task id identifies the task, if all waits name one question. If
    they do not, nothing shows whose task it is. No wait then decides anything, and none receives its answer once the
    task has ended.
    """
    keys = {wait.route.idempotency_key for wait in waits}
    if outcome.idempotency_key is None and len(keys) > 1:
        return outcome, [], waits if outcome.terminal else []
    outcome = _with_key(outcome, next(iter(keys)))
    ours = [wait for wait in waits if wait.route.idempotency_key == outcome.idempotency_key]
    return outcome, ours, [wait for wait in waits if wait not in ours]


def _with_key(outcome: Outcome, key: str) -> Outcome:
    """Return the outcome with this key if the server hides it."""
    return outcome if outcome.idempotency_key is not None else outcome.model_copy(update={"idempotency_key": key})
