"""Open waits -> one check of the task on their schedule -> answered.

Law: no answer is lost because a callback is missing. A task completed by e-mail or in Slack sends none, and the relay
may have been down when one was sent. The sweep finds both.

The most overdue tasks are checked first, whichever caller they belong to. Checks are rate-limited. A slow check does
not delay the others, and a failed check is repeated soon.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

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
from awaithumans_relay.availability.server_causes import concerns_server
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.store import Store, Wait
from awaithumans_relay.store.schedule import MAX_CHECK_SECONDS
from awaithumans_relay.sweep.deleted_tasks import Deletions
from awaithumans_relay.sweep.ended_tasks import EndedTasks
from awaithumans_relay.sweep.found_answers import FoundAnswers
from awaithumans_relay.sweep.orphans import Orphans
from awaithumans_relay.sweep.rate_limit import RateLimiter

logger = safe_logger("awaithumans.relay")

TICK_SECONDS = 1.0
"""Seconds until the table is read again when nothing more was due."""
CLAIM_SECONDS = 0.2
"""Seconds between two reads of the table when more was due.

Checks are claimed a few at once, not one per transaction.
"""
RETRY_SECONDS = 5.0
"""Seconds until a failed check is repeated."""
MAX_REQUESTS = 8
"""Maximum number of concurrent requests. The server answers from one process."""
MAX_CHECKS = 32
"""Maximum number of concurrent checks. Those beyond the requests mostly wait for an engine to report on a caller."""
BEHIND_SECONDS = 10.0
"""A check overdue by more seconds than this means that more checks are due than the rate limit allows."""


PROBE_BACKOFF = Backoff(first=1.0, most=15.0)
"""Delay between two checks of a server that is unreachable."""
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
        rate_limiter: The rate limiter of checks.
        observer: Notified of every check.
        rule: When a deleted task ends its waits.
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
        rate_limiter: RateLimiter | None = None,
        observer: Observer | None = None,
        rule: Rule = RULE,
        lapsed_before: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        self._observer = observer or Observer(engines)
        self._checks = store.checks
        self._client = client
        self._on_answer = on_answer
        self._rate_limiter = rate_limiter or RateLimiter()
        self._server = self._observer.health.server
        self._probes = 0
        """Number of probes sent since the server became unreachable."""
        self._orphans = Orphans(store.checks, store.queries, engines, self._observer.health)
        self._answers = FoundAnswers(store.intake, self._observer)
        self._ended_tasks = EndedTasks(store.checks, client, self._rate_limiter, self._answers, on_answer=on_answer)
        self._deletions = Deletions(store.missing_tasks, self._observer, on_answer=on_answer, rule=rule)
        self._lapsed_before = lapsed_before
        self._odd_replies: dict[str, int] = {}
        """Number of consecutive odd replies, by task."""
        self._requests = asyncio.Semaphore(MAX_REQUESTS)
        self._backoff = Backoff(first=TICK_SECONDS, most=15.0)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Sweep while the block runs."""
        async with self._deletions.running(), beside(sweep=self._run(), ahead=self._ended_tasks.running()):
            yield

    def callback_received(self, outcome: Outcome) -> None:
        """Note that a callback has arrived. If it was late, the sweep finds the others ahead of their callbacks."""
        self._ended_tasks.callback_received(outcome)

    async def _run(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        failures = 0
        try:
            while True:
                probing = self._server.unresponsive
                if probing:
                    self._probes += 1
                    await asyncio.sleep(PROBE_BACKOFF.delay(self._probes))
                room = min(await self._rate_limiter.wait_for_budget(), 1 if probing else MAX_CHECKS - len(under_way))
                try:
                    by_task = await self._claim(room)
                    failures = 0
                    self._observer.health.store.responded()
                except Exception as error:
                    failures += 1
                    self._observer.store_failed(error)
                    await asyncio.sleep(self._backoff.delay(failures))
                    continue
                for task_id, waits in by_task.items():
                    check = asyncio.create_task(self._check(task_id, waits, probe=probing))
                    under_way.add(check)
                    check.add_done_callback(under_way.discard)
                if probing and under_way:
                    await asyncio.wait(under_way)
                elif sum(map(len, by_task.values())) < room:
                    await asyncio.sleep(TICK_SECONDS)
                else:
                    await asyncio.sleep(CLAIM_SECONDS)
                if len(under_way) >= MAX_CHECKS:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for check in under_way:
                check.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _claim(self, room: int) -> dict[str, list[Wait]]:
        """Claim the waits that are due, grouped by task. One check serves all waits on a task."""
        due = await self._checks.claim(room)
        by_task: dict[str, list[Wait]] = {}
        for wait in due:
            by_task.setdefault(wait.task_id, []).append(wait)
        self._rate_limiter.spend(len(by_task))
        if due and self._checks.clock() - due[0].next_check_at > BEHIND_SECONDS and not self._server.unresponsive:
            self._ended_tasks.run()
        return by_task

    async def _check(self, task_id: str, waits: list[Wait], *, probe: bool) -> None:
        try:
            await self._check_task(task_id, waits, probe=probe)
        except Exception:  # the store is unavailable
            logger.exception("check of task %s failed", task_id)
            with suppress(Exception):
                await self._checks.postpone(waits, RETRY_SECONDS)

    async def _check_task(self, task_id: str, waits: list[Wait], *, probe: bool) -> None:
        try:
            outcome = await self._read(task_id, probe=probe)
            if outcome is not None:
                await self._decide(outcome, waits)
        except TaskNotFoundError:
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
            await self._rate_limiter.wait_for_pause()
            if self._server.unresponsive and not probe:
                return None
            outcome = await self._client.get(task_id)
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
        self._rate_limiter.spend(2)
        async with self._requests:
            closed = await self._client.run(flow.close_if_marked(outcome.task_id, key, marks, Patience(0)))
        return _with_key(closed, key)

    async def _park(self, waits: Sequence[Wait], reason: str) -> None:
        for wait in waits:
            await self._checks.park(wait, reason=reason)

    async def _take(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Store the outcome of a task that has ended."""
        if await self._answers.record(outcome, waits):
            self._on_answer()

    def _note_success(self, task_id: str) -> None:
        self._odd_replies.pop(task_id, None)
        self._probes = 0
        self._server.succeeded()
        self._observer.metrics.task_checked()

    def _note_failure(self, task_id: str, error: RequestRefusedError | ServerUnreachableError) -> float:
        """Return the seconds after which a failed check is repeated."""
        if concerns_server(error):
            if self._server.state != "failing":
                logger.warning("check of task %s failed: %s", task_id, error, extra={"task_id": task_id})
            self._server.failed(error)
            rest = error.retry_after if isinstance(error, ServerUnreachableError) else 0.0
            self._rate_limiter.pause(rest)
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
