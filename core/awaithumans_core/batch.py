"""Many waits in one process, over a few connections.

Law: the cost of waiting grows with the number of allowed connections, not with the number of open questions. The only
exception is one read of each question every nine minutes, which shows whether its task was deleted.

- Each long poll holds a connection and keeps the server busy, so no more questions than connections are ever polled.
- While there are more questions, one check every few seconds serves them all. It reads the server's list of ended
  tasks. For two hundred tasks, the list costs the server as much as six single reads.
- A list may not show a task that was deleted, or one that this token may read but not list. A patrol finds these: with
  every check it reads a few tasks one by one, least recently read first, and each task within `DETECT_SECONDS`.
- For questions that are much older than the others, only those few pages are listed that cost less than reading the
  tasks one by one.
"""

import asyncio
import math
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from awaithumans_core import flow
from awaithumans_core.clock import Clock
from awaithumans_core.deleted_tasks import DETECT_SECONDS, Readings, Verdict
from awaithumans_core.errors import (
    AwaitHumansError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    TaskNotFoundError,
)
from awaithumans_core.flow import Flow, Patience
from awaithumans_core.http.connections import generation, running_loop
from awaithumans_core.outcome import Outcome, end_without_answer
from awaithumans_core.progress import BatchProgress
from awaithumans_core.reask import answered
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.status import NOT_FOUND
from awaithumans_core.task import HumanTask

logger = safe_logger("awaithumans")

T = TypeVar("T")
R = TypeVar("R")

CONNECTIONS = 20
"""Maximum number of connections for a batch of questions: httpx's own default for idle connections."""

CHECK_SECONDS = 4.0
"""Seconds between two checks of young questions. Including the check's own time, an answer is seen within 5 s."""

CHECK_SHARE = 0.04
"""Interval of checks as a share of the age of the youngest question.

With it, an answer is seen within 5 % of the time that the person took.
"""

MAX_CHECK_SECONDS = DETECT_SECONDS
"""Maximum number of seconds between two checks, as in the relay's sweep."""

REST = 10.0
MAX_REST_SECONDS = 60.0
"""After a check, the pause is at least `REST` times as long as the check took, up to a minute.

This keeps the checks from overloading a slow server.
"""

PATROL = 5
"""Minimum number of questions that are read one by one with each check."""


RECHECK_SHARE = 0.9
"""A missing task is read again with the first check after this share of its recheck interval."""


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
    checked_at: float
    ended: "asyncio.Future[Outcome | None]"
    """How the task ended. None: poll the task directly, since there is a connection for it now or its time is up."""


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
        self._page = flow.FIRST_PAGE
        self._rest = self._next = 0.0
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
        if self._next - wait.opened > CHECK_SECONDS:
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
        """Check all open questions repeatedly, until there is a connection for each."""
        checked_at = self._clock.now()
        self._next = checked_at + self._interval()
        while self._exceeds_connections:
            if (left := self._next - self._clock.now()) > 0:
                await self._pause(left)
                if self._opened.is_set():  # a question opened meanwhile may need an earlier check
                    self._opened.clear()
                    self._next = checked_at + self._interval()
                continue
            checked_at = self._clock.now()
            listed = await self._check_once() if self._open else True
            self._rest = min((self._clock.now() - checked_at) * (REST if listed else 1.0), MAX_REST_SECONDS)
            for wait in self._waits:
                if wait.until <= self._clock.now():
                    _resolve(wait, None)
            # Yield, so that the resolved waits run and count as answered before the loop condition is evaluated again.
            await asyncio.sleep(0)
            self._next = checked_at + self._interval()
        if self._check_slots is not self._slots:
            self._slots.release()
        for wait in self._waits:
            _resolve(wait, None)

    def _interval(self) -> float:
        """Return the number of seconds from one check to the next."""
        now, waits = self._clock.now(), self._waits
        youngest = min((now - wait.opened for wait in waits), default=0.0)
        deadline = min((wait.until - now for wait in waits), default=MAX_CHECK_SECONDS)
        usual = min(max(CHECK_SECONDS, CHECK_SHARE * youngest), MAX_CHECK_SECONDS)
        if self._readings.missing_tasks.keys() & self._open.keys():
            usual = min(usual, self._readings.rule.recheck_seconds)
        return max(min(usual, max(deadline, CHECK_SECONDS)), self._rest)

    async def _pause(self, seconds: float) -> None:
        waiting = [
            asyncio.create_task(self._clock.sleep(seconds)),
            asyncio.create_task(self._opened.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _check_once(self) -> bool:
        """Check the list of ended tasks and read the patrol's tasks. Return whether the list could be read."""
        waits = sorted(self._waits, key=lambda wait: wait.checked_at)
        created = [wait.created_at for wait in waits if wait.created_at is not None]
        patrol = self._patrolled(waits)
        rest = [wait for wait in waits if wait not in patrol]
        try:
            self._page, reached = await self._run_flow(
                flow.ended(created, self._page, self._brief), on_status=self._found, slots=self._check_slots
            )
        except (RequestRefusedError, ServerUnreachableError):
            read = await self._patrol(patrol, self._check_slots)
            if read:  # the server answers but gives no list, so every task must be read
                await self._patrol(rest, self._slots)
            return False
        await self._patrol(patrol, self._check_slots)
        await self._patrol([wait for wait in rest if self._is_due(wait) and not _listed(wait, reached)], self._slots)
        return True

    def _patrolled(self, waits: list[_Wait]) -> list[_Wait]:
        """Return which waits to read with this check, given in the order of their last reads.

        Missing tasks are read again soon.
        """
        now, missing = self._clock.now(), self._readings.missing_tasks
        share = math.ceil(len(waits) * self._interval() / DETECT_SECONDS)
        recheck = self._readings.rule.recheck_seconds
        again = [wait for wait in waits if wait.task_id in missing and now - wait.checked_at >= recheck * RECHECK_SHARE]
        return [*again, *(wait for wait in waits[: max(PATROL, share)] if wait not in again)]

    def _is_due(self, wait: _Wait) -> bool:
        """Whether a question that no list shows is due to be read again, judged by its own age."""
        now = self._clock.now()
        return now - wait.checked_at >= min(max(CHECK_SECONDS, CHECK_SHARE * (now - wait.opened)), MAX_CHECK_SECONDS)

    async def _patrol(self, waits: list[_Wait], slots: asyncio.Semaphore) -> bool:
        """Read the tasks of these waits one by one. Return whether the server replied to any read."""
        return any(await asyncio.gather(*(self._read(wait, slots) for wait in waits)))

    async def _read(self, wait: _Wait, slots: asyncio.Semaphore) -> bool:
        wait.checked_at = self._clock.now()
        try:
            outcome = await self._run_flow(flow.get(wait.task_id, self._brief, key=wait.key), slots=slots)
            self._readings.present(wait.task_id, self._clock.now())
            self._found(outcome)
        except TaskNotFoundError as unknown:
            self._missing(wait, unknown)
        except RequestRefusedError as refused:
            if not wait.ended.done():
                wait.ended.set_exception(refused)
        except ServerUnreachableError:
            return False
        return True

    def _missing(self, wait: _Wait, unknown: TaskNotFoundError) -> None:
        now, doubted_before = self._clock.now(), self._readings.doubted
        verdict = self._readings.missing(wait.task_id, now)
        missing = self._readings.missing_tasks[wait.task_id]
        if verdict == Verdict.DELETED and not wait.ended.done():
            gone = Outcome(task_id=wait.task_id, status=NOT_FOUND)
            wait.ended.set_exception(end_without_answer(gone) or unknown)
        elif verdict == Verdict.DOUBTED and not doubted_before:
            message = "%s: it may be running on another database, so no question ends"
            logger.warning(message, self._readings.census(missing.since))
        elif missing.count == 1:
            logger.warning("task %s is not on the server (%s); it is read again", wait.task_id, unknown)

    @property
    def _brief(self) -> Patience:
        """The patience of one check. It is short, because the next check tries again after an outage."""
        return Patience(CHECK_SECONDS, clock=self._clock.now)

    def _found(self, outcome: Outcome) -> None:
        """Resolve the waits of a task with its record, from the list or from a single read, if the task has ended."""
        if outcome.terminal:
            for wait in self._open.get(outcome.task_id, ()):
                if outcome.idempotency_key in (None, wait.key):
                    _resolve(wait, outcome)

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
    return _Wait(created.task_id, question.idempotency_key, created.created_at, now, until, now, ended)


def _listed(wait: _Wait, reached: datetime | None) -> bool:
    """Whether a list that was read back to the moment `reached` would have shown the end of this task."""
    return reached is None or (wait.created_at is not None and wait.created_at > reached)


def _resolve(wait: _Wait, ended: Outcome | None) -> None:
    if not wait.ended.done():
        wait.ended.set_result(ended)


def _failed(done: "asyncio.Task[None]", arrived: "asyncio.Queue[Any]") -> None:
    """Pass an unexpected error on to the reader of the batch, which would otherwise wait forever."""
    if not done.cancelled() and (error := done.exception()) is not None:
        arrived.put_nowait(error)
