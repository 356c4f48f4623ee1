"""Many waits in one process, over a few connections.

Law: the cost of waiting grows with the number of allowed connections, not with the number of open questions, and the
checks take a small share of the time at most.

- Each long poll holds a connection and keeps the server busy, so no more questions than connections are ever polled.
- While there are more questions, they are checked as the relay's sweep checks its waits: by the rules of
  `awaithumans_core.schedule`. A page of a list usually serves them all. What no list shows is read task by task.
- Each task is seen open within `DETECT_SECONDS`, by a read or on a list of open tasks. So a deletion is noticed.
"""

import asyncio
import math
import queue
import random
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from awaithumans_core import flow
from awaithumans_core.clock import Clock
from awaithumans_core.deleted_tasks import Readings, Verdict
from awaithumans_core.errors import (
    AwaitHumansError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    TaskNotFoundError,
    UnexpectedReplyError,
)
from awaithumans_core.flow import Flow, Patience
from awaithumans_core.http.connections import generation, running_loop
from awaithumans_core.outcome import Outcome, end_without_answer
from awaithumans_core.progress import BatchProgress
from awaithumans_core.reask import answered
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.schedule import (
    JITTER,
    MAX_CHECK_SECONDS,
    SOON_SHARE,
    YOUNG_SECONDS,
    Budget,
    Costs,
    Ended,
    OpenPage,
    Reads,
    Standing,
    best_way,
    first_to_check,
    interval,
    may_postpone,
)
from awaithumans_core.schedule.budget import MAX_RATIO
from awaithumans_core.schedule.costs import SLOW_SECONDS, in_order
from awaithumans_core.schedule.times import OVERLOOKED_SECONDS, PROBE_BACKOFF, RETRY_SECONDS
from awaithumans_core.schedule.ways import pages_of
from awaithumans_core.status import NOT_FOUND
from awaithumans_core.task import HumanTask

logger = safe_logger("awaithumans")

T = TypeVar("T")
R = TypeVar("R")

CONNECTIONS = 20
"""Maximum number of connections for a batch of questions: httpx's own default for idle connections."""

PATIENCE_SECONDS = 4.0
"""Seconds for which a check is tried again while there is no usable reply. The next check tries again as well."""

MAX_CHOICES = 8
"""Maximum number of lists for one round of checks. What they do not serve is read task by task."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The result of one question of a batch: an answer or an error."""

    question: HumanTask[T]
    """The question, as the caller passed it."""
    outcome: Outcome | None
    """How its task ended: the status, who answered, when, and on which channel. None if that is not known."""
    error: AwaitHumansError | None = None
    """Why there is no answer: the error that `await_human` would have raised."""
    decision: T | None = field(default=None, repr=False)
    """The typed answer. None if there is an error."""

    def result(self) -> T:
        """Return the typed answer.

        Raises:
            AwaitHumansError: `error`, if there is one.
        """
        if self.error is not None:
            raise self.error
        return self.decision  # type: ignore[return-value]  # without an error there is a decision


class Run(Protocol):
    """Drives a flow over the client's connections. Every call takes one of the slots."""

    def __call__(
        self,
        steps: Flow[R],
        *,
        on_status: Callable[[Outcome], None] | None = None,
        slots: asyncio.Semaphore | None = None,
    ) -> Coroutine[Any, Any, R]:
        """Drive the flow to its end and return its result, as `TaskClient.run` does."""
        ...


@dataclass(eq=False, slots=True)
class _Wait:
    """One question whose task is open, and the future that its caller waits for."""

    task_id: str
    key: str
    created_at: datetime | None
    opened: float
    until: float
    next_at: float
    """When the task is checked next."""
    ended: "asyncio.Future[Outcome | None]"
    """How the task ended. None: poll the task directly, since there is a connection for it now or its time is up."""
    status: str = "created"
    """The status in which the task was last seen."""
    created: float = 0.0
    """When the task was created, by the server's clock if that is known."""
    hinted: bool = False
    """Whether a list of open tasks did not show the task in its place."""
    postponed_at: float = math.inf
    """When the list of ended tasks last postponed the check."""
    listed_at: float = -math.inf
    """When a list of open tasks last showed the task."""
    reading: bool = False
    """Whether a read of the task is under way."""


class Batch:
    """Asks all the questions of one `as_completed`, and checks their tasks together."""

    def __init__(self, run: Run, clock: Clock, connections: int, progress: BatchProgress | None = None) -> None:
        if connections < 1:
            raise ValueError(f"connections is {connections}: at least one is needed")
        self._run_flow = run
        self._progress = progress
        self._clock = clock
        self._connections = connections
        # Checks must not queue behind a thousand questions that are still to be asked. They have a connection of their
        # own for as long as they are needed.
        self._slots = asyncio.Semaphore(max(1, connections - 1))
        self._check_slots = asyncio.Semaphore(1) if connections > 1 else self._slots
        self._open: dict[str, list[_Wait]] = {}
        self._unanswered = 0
        self._costs = Costs()
        self._reading: set[asyncio.Task[None]] = set()
        """Reads that are under way."""
        self._in_flight = 0
        self._failures = 0
        """Number of checks in a row that did not reach the server."""
        self._probe_at = -math.inf
        """When the server is asked again after such a failure."""
        self._budget = Budget.full(clock.now())
        self._next = 0.0
        self._opened = asyncio.Event()
        self._readings = Readings()

    async def answers(self, questions: Iterable[HumanTask[T]]) -> AsyncGenerator[tuple[int, Answer[T]]]:
        """Ask all questions. Yield each answer as it arrives, with the position of its question."""
        all_of_them = list(questions)  # if this raises, no question has been asked yet
        running_loop()
        arrived: asyncio.Queue[tuple[int, Answer[T]] | BaseException] = asyncio.Queue()

        async def one(position: int, question: HumanTask[T]) -> None:
            arrived.put_nowait((position, await self._answer(position, question)))

        asking = [asyncio.create_task(one(position, question)) for position, question in enumerate(all_of_them)]
        self._unanswered = len(asking)
        tasks = [*asking, asyncio.create_task(self._check_repeatedly())]
        for task in tasks:
            task.add_done_callback(lambda done: _failed(done, arrived))
        try:
            for _ in asking:
                arrival = await arrived.get()
                if isinstance(arrival, BaseException):
                    raise arrival
                yield arrival
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, position: int, question: HumanTask[T]) -> Answer[T]:
        try:
            decision, outcome = await answered(question, partial(self._ask, position))
        except AwaitHumansError as error:
            answer = Answer(question, getattr(error, "outcome", None), error)
        else:
            answer = Answer(question, outcome, decision=decision)
        finally:
            self._unanswered -= 1
        if self._progress is not None:
            self._progress.ended(position, answered=answer.error is None)
        return answer

    async def _ask(self, position: int, question: HumanTask[Any]) -> Outcome:
        patience = Patience(question.seconds, clock=self._clock.now)
        created = await self._run(flow.create(question.body(), patience))
        if created.terminal:
            return created
        if self._progress is not None:
            self._progress.opened(position, question, created)
        now = self._clock.now()
        until = now + question.seconds + flow.TIMEOUT_GRACE_SECONDS
        if self._exceeds_connections:
            ended = await self._await_checks(_wait(created, question, now, until))
            if ended is not None:
                return ended
        left = until - self._clock.now()
        return await self._run(flow.finish(created, left, patience, given=question.seconds, readings=self._readings))

    async def _await_checks(self, wait: _Wait) -> Outcome | None:
        self._open.setdefault(wait.task_id, []).append(wait)
        if self._next > wait.next_at:
            self._opened.set()
        try:
            return await wait.ended
        finally:
            others = self._open[wait.task_id]
            others.remove(wait)
            if not others:
                del self._open[wait.task_id]

    @property
    def _exceeds_connections(self) -> bool:
        """Whether there are more unanswered questions than connections.

        Once False, it stays False, because a re-ask takes the place of its question.
        """
        return self._unanswered > self._connections

    @property
    def _waits(self) -> list[_Wait]:
        return [wait for waits in self._open.values() for wait in waits]

    async def _check_repeatedly(self) -> None:
        """Check the open questions on their schedule, until there is a connection for each."""
        try:
            while self._exceeds_connections:
                await self._check_next()
        finally:
            for read in self._reading:
                read.cancel()
            await asyncio.gather(*self._reading, return_exceptions=True)
        if self._check_slots is not self._slots:
            self._slots.release()
        for wait in self._waits:
            _resolve(wait, None)

    async def _check_next(self) -> None:
        """Check what is due, or wait until something is."""
        now = self._clock.now()
        for wait in self._waits:
            if wait.until <= now:
                _resolve(wait, None)
        self._budget.refill(now)
        times = (min(math.inf if wait.reading else wait.next_at, wait.until) for wait in self._waits if _waiting(wait))
        self._next = max(min(times, default=now + MAX_CHECK_SECONDS), now + self._budget.wait(), self._probe_at)
        if self._next > now:
            await self._until(self._next - now, self._opened.wait())
            self._opened.clear()
        else:
            await self._check_due()
        for read in [read for read in self._reading if read.done()]:
            self._reading.remove(read)
            read.result()
        # Yield, so that the resolved waits run and count as answered before the loop condition is evaluated again.
        await asyncio.sleep(0)

    async def _until(self, seconds: float, event: Coroutine[Any, Any, object]) -> None:
        """Wait for the event, for at most this time."""
        waiting = [asyncio.create_task(self._clock.sleep(seconds)), asyncio.create_task(event)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _check_due(self) -> None:
        """Check the questions that are due: by lists where that is cheaper, the others each by a read of its task."""
        now = self._clock.now()
        missing = self._readings.missing_tasks
        affordable = 1 if self._failures else max(1, int(self._budget.left / self._costs.read))
        overdue = [wait for wait in self._waits if wait.next_at <= now and not wait.reading]
        due = _newest_first(_in_turn(overdue, now, affordable))
        reads = [wait for wait in due if wait.task_id in missing]
        due = [wait for wait in due if wait.task_id not in missing]
        for _ in range(0 if self._failures else MAX_CHOICES):
            if not due or (left := await self._list_first(due, reads)) is None:
                break
            due = left
        reads += due
        if reads:  # one that is slow is not waited for
            self._reading |= (begun := {asyncio.create_task(self._read(wait)) for wait in reads})
            await self._until(SLOW_SECONDS, asyncio.wait(begun))

    async def _list_first(self, due: "list[_Wait]", reads: "list[_Wait]") -> "list[_Wait] | None":
        """Check the first of these, and others with it, by a list, and return those that it does not reach.

        Those that it should have shown are added to `reads`. None: reading the first one is cheaper.
        """
        now = self._clock.now()
        every = _newest_first([wait for wait in self._waits if wait.status == due[0].status])
        rank = every.index(due[0])
        below = every[rank:]
        horizon = now + SOON_SHARE * interval(now - due[0].opened)
        standing = Standing(
            rank=rank,
            due=[wait.next_at <= horizon for wait in below],
            proved=[_proved(wait, now) and wait.created_at is not None for wait in below],
            ages=[now - wait.opened for wait in below],
            status=due[0].status,
        )
        way = best_way(self._costs, standing, now)
        match way:
            case Reads():
                return None
            case OpenPage():
                shown = await self._open_page(way, due[0].status, every, rank)
                absent = [wait for wait in due if wait in shown.absent]
                for wait in absent:
                    wait.hinted = True
                left = [wait for wait in due if wait not in shown.seen and wait not in shown.absent]
                if left[:1] == due[:1]:  # its place was estimated wrongly, so it is read
                    absent.append(left.pop(0))
                reads += absent
                return left
            case Ended():
                reached = await self._ended_pages(way.rows, every)
                for wait in below:
                    if wait.next_at <= horizon and _proved(wait, now) and _reaches(reached, wait):
                        self._seen(wait)
                        wait.postponed_at = now
                return [wait for wait in due if wait.next_at <= now and not wait.ended.done()]

    async def _open_page(self, way: OpenPage, status: str, every: "list[_Wait]", rank: int) -> "_Shown":
        page = await self._page(status, way.offset, way.size)
        if page is None:
            return _Shown([], [])
        now, shown = self._clock.now(), _Shown([], [])
        open_tasks = {task.task_id: task for task in page.tasks if not task.terminal}
        for wait in every:
            task = open_tasks.get(wait.task_id)
            if task is not None and task.idempotency_key in (None, wait.key):
                shown.seen.append(wait)
                wait.listed_at = now
                self._readings.present(wait.task_id, now)
        places = [every.index(wait) for wait in shown.seen]
        if way.offset and places:
            middle = len(places) // 2
            row = [task.task_id for task in page.tasks].index(shown.seen[middle].task_id)
            self._costs.open(status).joined(places[middle] + 1, way.offset + row + 1)
        elif way.offset:
            self._costs.open(status).missed(rank, beyond=not page.tasks)
        else:
            self._costs.open(status).joined(len(places), len(page.tasks))
        moments = [wait.created for wait in shown.seen]
        lowest = min(moments, default=math.inf) if page.full else -math.inf
        highest = max(moments, default=-math.inf) if way.offset else math.inf
        shown.absent.extend(wait for wait in every if lowest < wait.created < highest and wait not in shown.seen)
        share = 1 - random.uniform(0, JITTER)  # noqa: S311 - spreads load, guards nothing
        for wait in shown.seen:
            self._seen(wait, share)
        return shown

    async def _ended_pages(self, rows: float, every: "list[_Wait]") -> datetime:
        """Read the newest rows of the list of ended tasks, and return the creation time of the last one."""
        offset, reached, full = 0, _LATEST, True
        for size in pages_of(rows):
            page = await self._page(None, offset, size)
            if page is None:
                return _LATEST
            for task in page.tasks:
                if task.answered:
                    self._found(task)
                elif task.terminal:  # a list may hide the response, so the task is read
                    self._due_now(task)
            offset += page.covered
            reached, full = page.reached or reached, page.full
            if not full:
                break
        dated = next((wait for wait in every if wait.created_at is not None), None)
        if dated is not None and dated.created_at is not None:
            now = self._clock.now()
            age = now - dated.opened + (dated.created_at - reached).total_seconds()
            if not full:
                self._costs.ended.ended_at(max(0.0, age), now)
            if age > 0:
                self._costs.ended.per_second = offset / age
        return reached

    async def _page(self, status: str | None, offset: int, size: int) -> flow.TaskPage | None:
        """Read a page of the tasks in this status, or of the ended ones. None: the list cannot be used."""
        listed = self._costs.ended if status is None else self._costs.open(status)
        began = self._clock.now()
        if not listed.usable(began, offset):
            return None
        size = min(size, listed.largest)
        brief = Patience(0, clock=self._clock.now)
        try:
            page = await self._run_flow(
                flow.ended_page(offset, size, brief) if status is None else flow.open_page(status, offset, size, brief),
                slots=self._check_slots,
            )
        except (RequestRefusedError, ServerUnreachableError):
            listed.failed(self._clock.now())
            self._budget.spend(listed.seconds(size, offset))
            return None
        took = self._clock.now() - began
        self._budget.spend(min(took, MAX_RATIO * listed.seconds(size, offset)))
        listed.took(size, offset, took, page.next_size, self._costs, self._clock.now())
        created = [task.created_at.timestamp() for task in page.tasks if task.created_at is not None]
        if not in_order(created):
            listed.failed(self._clock.now())
            return None
        return page

    def _seen(self, wait: _Wait, share: float = 1.0) -> None:
        """Schedule the next check of a question whose task is open."""
        now = self._clock.now()
        wait.next_at = now + interval(now - wait.opened) * share

    async def _read(self, wait: _Wait) -> None:
        failures, wait.reading = self._failures, True
        try:
            async with self._slots:
                if self._failures == failures:  # else the server has become unreachable since, and one read is enough
                    await self._read_now(wait)
        finally:
            wait.reading = False
            self._opened.set()

    async def _read_now(self, wait: _Wait) -> None:
        began = self._clock.now()
        share = 1 - random.uniform(0, JITTER)  # noqa: S311 - spreads load, guards nothing
        wait.next_at = began + interval(began - wait.opened) * share
        brief = Patience(PATIENCE_SECONDS, clock=self._clock.now)
        self._in_flight += 1
        try:
            outcome = await self._run_flow(flow.get(wait.task_id, brief, key=wait.key))
        except TaskNotFoundError as unknown:
            self._failures = 0
            self._missing(wait, unknown)
        except RequestRefusedError as refused:
            self._failures = 0
            if not wait.ended.done():
                wait.ended.set_exception(refused)
        except ServerUnreachableError as error:
            self._unreachable(wait, error)
        else:
            self._failures = 0
            # The server is one process, so reads at the same time wait for each other.
            took = (self._clock.now() - began) / self._in_flight
            self._budget.spend(min(took, MAX_RATIO * self._costs.read))
            self._costs.read_took(took)
            self._learn(wait, outcome)
            self._readings.present(wait.task_id, self._clock.now())
            self._found(outcome)
        finally:
            self._in_flight -= 1

    def _unreachable(self, wait: _Wait, error: ServerUnreachableError) -> None:
        """Plan the next check after one without a usable reply. An odd reply concerns its task only."""
        now = self._clock.now()
        self._budget.spend(self._costs.read)
        wait.next_at = now + max(RETRY_SECONDS, interval(now - wait.opened))
        if not isinstance(error, UnexpectedReplyError):
            self._failures += 1
            self._probe_at = now + max(PROBE_BACKOFF.delay(self._failures), error.retry_after)

    def _learn(self, wait: _Wait, outcome: Outcome) -> None:
        """Learn from a read whether the lists were right about this task."""
        now = self._clock.now()
        if wait.hinted:
            wait.hinted = False
            right = outcome.terminal or outcome.status != wait.status
            self._costs.open(wait.status).confirmed(now, right=right)
        ended = outcome.completed_at or outcome.timed_out_at
        if not outcome.terminal:
            wait.status, wait.postponed_at = outcome.status, math.inf
        elif ended is not None and wait.created_at is not None:
            ended_at = wait.opened + (ended - wait.created_at).total_seconds()
            if ended_at < wait.postponed_at - OVERLOOKED_SECONDS and wait.postponed_at < now:
                self._costs.ended.confirmed(now, right=False)

    def _missing(self, wait: _Wait, unknown: TaskNotFoundError) -> None:
        now, doubted_before = self._clock.now(), self._readings.doubted
        verdict = self._readings.missing(wait.task_id, now)
        missing = self._readings.missing_tasks[wait.task_id]
        if verdict == Verdict.UNCONFIRMED:
            wait.next_at = now + self._readings.rule.recheck_seconds
        if verdict == Verdict.DELETED and not wait.ended.done():
            gone = Outcome(task_id=wait.task_id, status=NOT_FOUND)
            wait.ended.set_exception(end_without_answer(gone) or unknown)
        elif verdict == Verdict.DOUBTED and not doubted_before:
            message = "%s: it may be running on another database, so no question ends"
            logger.warning(message, self._readings.census(missing.since))
        elif missing.count == 1:
            logger.warning("task %s is not on the server (%s); it is read again", wait.task_id, unknown)

    def _found(self, outcome: Outcome) -> None:
        """Resolve the waits of a task with its record, from the list or from a single read, if the task has ended."""
        if outcome.terminal:
            for wait in self._open.get(outcome.task_id, ()):
                if outcome.idempotency_key in (None, wait.key):
                    _resolve(wait, outcome)

    def _due_now(self, outcome: Outcome) -> None:
        for wait in self._open.get(outcome.task_id, ()):
            if outcome.idempotency_key in (None, wait.key):
                wait.next_at, wait.listed_at = self._clock.now(), -math.inf

    async def _run(self, steps: Flow[R]) -> R:
        return await self._run_flow(steps, slots=self._slots)


def in_a_thread(
    batch: Callable[[], AsyncGenerator[tuple[int, Answer[T]]]],
) -> Generator[tuple[int, Answer[T]]]:
    """Yield the answers of a batch without an event loop of the caller.

    A thread runs the batch in an event loop of its own, and passes on each answer. A forked child does not have this
    thread, so it cannot continue what its parent began.
    """
    begun_in = generation()
    arrived: queue.SimpleQueue[tuple[int, Answer[T]] | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        answers = batch()
        try:
            async for arrival in answers:
                arrived.put(arrival)
        except Exception as error:  # raised again in the caller's thread
            arrived.put(error)
        finally:
            await answers.aclose()
            arrived.put(None)

    def run_loop() -> None:
        asyncio.set_event_loop(loop)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(working)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    working = loop.create_task(run())
    thread = threading.Thread(target=run_loop, name="awaithumans-batch", daemon=True)
    thread.start()
    try:
        while (arrival := arrived.get()) is not None:
            if isinstance(arrival, BaseException):
                raise arrival
            yield arrival
            if begun_in != generation():
                raise SettingsError(
                    "as_completed was begun before this process forked, and its thread is in the parent. Call it again "
                    "here: questions with the same idempotency_key are picked up where they are"
                )
    finally:
        if thread.is_alive():
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(working.cancel)
        thread.join()


def _wait(created: Outcome, question: HumanTask[Any], now: float, until: float) -> _Wait:
    ended: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
    next_at = now + interval(0.0)
    moment = now if created.created_at is None else created.created_at.timestamp()
    return _Wait(
        created.task_id,
        question.idempotency_key,
        created.created_at,
        now,
        until,
        next_at,
        ended,
        created=moment,
    )


_LATEST = datetime.max.replace(tzinfo=UTC)
"""Time that a list reaches back to if nothing of it could be read."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a page of open tasks has shown."""

    seen: list[_Wait]
    absent: list[_Wait]
    """Questions that it does not show in their places. Their tasks are to be read."""


def _in_turn(due: list[_Wait], now: float, limit: int) -> list[_Wait]:
    """Return the due questions that are checked now, as many as the budget allows."""
    overdue = sorted(due, key=lambda wait: wait.next_at)
    young = [wait for wait in overdue if now - wait.opened < YOUNG_SECONDS]
    return first_to_check(young, [wait for wait in overdue if now - wait.opened >= YOUNG_SECONDS], limit)


def _newest_first(waits: list[_Wait]) -> list[_Wait]:
    """Return the questions in the order in which the server lists their tasks."""
    newest_first = waits[::-1]  # those that were created in the same moment too
    newest_first.sort(key=lambda wait: wait.created, reverse=True)
    return newest_first


def _waiting(wait: _Wait) -> bool:
    """Whether its caller still waits for its end. A caller that was just resolved has not run yet."""
    return not wait.ended.done()


def _proved(wait: _Wait, now: float) -> bool:
    """Whether the list of ended tasks may postpone the check."""
    return may_postpone(now - wait.listed_at, now - wait.opened)


def _reaches(reached: datetime, wait: _Wait) -> bool:
    """Whether a list that was read back to this moment would have shown the end of this task."""
    return wait.created_at is not None and wait.created_at > reached


def _resolve(wait: _Wait, ended: Outcome | None) -> None:
    if not wait.ended.done():
        wait.ended.set_result(ended)


def _failed(done: "asyncio.Task[None]", arrived: "asyncio.Queue[Any]") -> None:
    """Pass an unexpected error on to the reader of the batch, which would otherwise wait forever."""
    if not done.cancelled() and (error := done.exception()) is not None:
        arrived.put_nowait(error)
