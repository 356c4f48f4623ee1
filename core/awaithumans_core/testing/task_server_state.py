"""The state of a `FakeHumans`, without a socket: its tasks, the scripts of its people, and deadlines.

It behaves like the awaithumans server 0.1.11, also where that differs from its documentation. A known key returns its
task, whatever the new request contains. Any response is accepted. A task that has ended does not change any more.
"""

import heapq
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from awaithumans_core.clock import Clock
from awaithumans_core.display.rows import original_payload
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.status import TERMINAL, TaskStatus
from awaithumans_core.testing.people import CALLED_BACK, Script

logger = safe_logger("awaithumans.testing")


class UnknownTaskError(LookupError):
    """Raised when there is no task with this id."""


class EndedError(Exception):
    """Raised when a task has ended, so that it cannot be changed any more."""


@dataclass
class FakeTask:
    """One task of the fake server. Tests may read its attributes."""

    id: str
    asked: dict[str, Any]
    """The request that created it, with the payload as the caller gave it."""
    created_at: datetime
    updated_at: datetime
    status: TaskStatus = TaskStatus.CREATED
    response: dict[str, Any] | None = None
    completed_at: datetime | None = None
    timed_out_at: datetime | None = None
    completed_by_email: str | None = None
    completed_by_user_id: str | None = None
    completed_via_channel: str | None = None
    verification_attempt: int = 0
    response_redacted_at: datetime | None = None
    history: list[TaskStatus] = field(default_factory=lambda: [TaskStatus.CREATED])
    """Every status that the task has had."""
    rows: dict[str, Any] = field(default_factory=dict[str, Any])
    """The payload as it was sent: rows that people can read."""

    @property
    def terminal(self) -> bool:
        """Whether the task has ended."""
        return self.status in TERMINAL

    def record(self, *, listed: bool = False) -> dict[str, Any]:
        """Return the task record of the API. Lists hide a redacted payload."""
        asked = self.asked
        hidden = listed and asked.get("redact_payload")
        assigned: dict[str, Any] = asked.get("assign_to") or {}
        return {
            "id": self.id,
            **{name: asked.get(name) for name in _FIELDS_OF_THE_REQUEST},
            "payload": {"_redacted": True} if hidden else self.rows,
            "redact_payload": bool(asked.get("redact_payload")),
            "redact_response_after_submit": bool(asked.get("redact_response_after_submit")),
            "status": self.status.value,
            "assigned_to_email": assigned.get("email"),
            "assigned_to_user_id": None,
            "assigned_to_display_name": None,
            "assigned_to_slack_user_id": None,
            "response": self.response,
            "response_redacted_at": _z(self.response_redacted_at),
            "verifier_result": None,
            "verification_attempt": self.verification_attempt,
            "created_at": _z(self.created_at),
            "updated_at": _z(self.updated_at),
            "completed_at": _z(self.completed_at),
            "timed_out_at": _z(self.timed_out_at),
            "completed_by_email": self.completed_by_email,
            "completed_by_user_id": self.completed_by_user_id,
            "completed_by_display_name": None,
            "completed_by_slack_user_id": None,
            "completed_via_channel": self.completed_via_channel,
        }

    def polled(self) -> dict[str, Any]:
        """Return the reply to a poll: only the status, until the task has ended."""
        ended = self.terminal
        return {
            "status": self.status.value,
            "response": self.response if ended else None,
            "completed_at": _z(self.completed_at) if ended else None,
            "timed_out_at": _z(self.timed_out_at) if ended else None,
        }

    def callback_body(self) -> bytes:
        """Return the body of the callback: compact JSON, with times without a zone."""
        body = {
            "task_id": self.id,
            "idempotency_key": self.asked["idempotency_key"],
            "status": self.status.value,
            "response": self.response,
            "completed_at": _naive(self.completed_at),
            "timed_out_at": _naive(self.timed_out_at),
            "completed_by_email": self.completed_by_email,
            "completed_via_channel": self.completed_via_channel,
            "verification_attempt": self.verification_attempt,
        }
        return json.dumps(body, separators=(",", ":")).encode()


_FIELDS_OF_THE_REQUEST = (
    "idempotency_key",
    "task",
    "payload_schema",
    "response_schema",
    "form_definition",
    "task_metadata",
    "assign_to",
    "initial_response",
    "timeout_seconds",
)


@dataclass(order=True)
class _Planned:
    at: float
    order: int
    task: FakeTask = field(compare=False)
    action: Callable[[], object] = field(compare=False)


class TaskServerState:
    """The tasks, scripts and planned events of the fake, behind one lock, since several threads may use them."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.tasks: dict[str, FakeTask] = {}
        self.scripts: list[Script] = []
        self.ended: Callable[[FakeTask], None] = lambda task: None
        """Called when a task has ended and a callback is due."""
        self._clock = clock
        self._began, self._began_at = clock.now(), datetime.now(UTC)
        self._keys: dict[str, str] = {}
        self._plan: list[_Planned] = []
        self._other: tuple[dict[str, FakeTask], dict[str, str], list[_Planned]] = ({}, {}, [])
        self._order = itertools.count()
        self._watchers: set[Callable[[], None]] = set()

    def moment(self) -> datetime:
        """Return the current time as a date, on the fake's clock."""
        return self._began_at + timedelta(seconds=self._clock.now() - self._began)

    def create(self, body: Mapping[str, Any]) -> tuple[FakeTask, bool]:
        """Return the task with that key, and whether it existed already."""
        with self.lock:
            known = self._keys.get(body["idempotency_key"])
            if known is not None:
                return self.tasks[known], True
            now = self.moment()
            asked = {**body, "payload": original_payload(body)}
            task = FakeTask(uuid.uuid4().hex, asked, now, now, rows=body["payload"])
            self.tasks[task.id] = task
            self._keys[body["idempotency_key"]] = task.id
            self._plan_script(task)
        self.notify()
        return task, False

    def get(self, task_id: str) -> FakeTask:
        """Return one task. Raises `UnknownTaskError` if there is none with this id."""
        with self.lock:
            try:
                return self.tasks[task_id]
            except KeyError:
                raise UnknownTaskError(task_id) from None

    def listed(self, status: str | None, *, terminal: bool, limit: int, offset: int) -> list[FakeTask]:
        """Return the tasks of one page of the list, newest first."""
        with self.lock:
            wanted = [
                task
                for task in reversed(self.tasks.values())
                if (task.status == status if status is not None else not terminal or task.terminal)
            ]
        return wanted[offset : offset + limit]

    def delete(self, task_id: str) -> None:
        """Remove the task and its key."""
        with self.lock:
            task = self.get(task_id)
            del self.tasks[task_id], self._keys[task.asked["idempotency_key"]]
        self.notify()

    def swap(self) -> None:
        """Switch to the other of two databases, which is empty at first. Time passes in both."""
        with self.lock:
            here = (self.tasks, self._keys, self._plan)
            (self.tasks, self._keys, self._plan), self._other = self._other, here
        self.notify()

    def complete(
        self,
        task_id: str,
        response: Mapping[str, Any],
        *,
        by: str | None = None,
        user_id: str | None = None,
        via: str | None = None,
        called_back: bool = True,
    ) -> FakeTask:
        """Complete the task with any response."""
        return self._end(
            task_id,
            TaskStatus.COMPLETED,
            response=dict(response),
            by=by,
            user_id=user_id,
            via=via,
            called_back=called_back,
        )

    def cancel(self, task_id: str) -> FakeTask:
        """Cancel the task, which must not have ended."""
        return self._end(task_id, TaskStatus.CANCELLED)

    def move(self, task_id: str, status: TaskStatus) -> FakeTask:
        """Change the status of the task. A terminal status ends it."""
        if status in TERMINAL:
            return self._end(task_id, status)
        with self.lock:
            task = self._open(task_id)
            task.status, task.updated_at = status, self.moment()
            task.history.append(status)
        self.notify()
        return task

    def _open(self, task_id: str) -> FakeTask:
        task = self.get(task_id)
        if task.terminal:
            raise EndedError(task_id, task.status.value)
        return task

    def _end(
        self,
        task_id: str,
        status: TaskStatus,
        *,
        response: dict[str, Any] | None = None,
        by: str | None = None,
        user_id: str | None = None,
        via: str | None = None,
        called_back: bool = True,
    ) -> FakeTask:
        with self.lock:
            task, now = self._open(task_id), self.moment()
            task.status, task.updated_at = status, now
            task.history.append(status)
            if status == TaskStatus.COMPLETED:
                task.response, task.completed_at = response, now
                task.completed_by_email, task.completed_via_channel = by, via
                task.completed_by_user_id = user_id
            elif status == TaskStatus.TIMED_OUT:
                task.timed_out_at = now
            elif status == TaskStatus.VERIFICATION_EXHAUSTED:
                verifier: dict[str, Any] = task.asked.get("verifier_config") or {}
                task.verification_attempt = verifier.get("max_attempts", 3)
            if called_back:
                self.ended(task)
        self.notify()
        return task

    def redact(self, task: FakeTask) -> None:
        """Erase the response after its callback, if the request asked for that."""
        with self.lock:
            if task.asked.get("redact_response_after_submit"):
                task.response, task.response_redacted_at = None, self.moment()

    # Time and people

    def _plan_script(self, task: FakeTask) -> None:
        """Plan the deadline of a task, and the actions of the first script that matches it."""
        begun, timeout = self._clock.now(), float(task.asked["timeout_seconds"])
        self._at(begun + timeout, task, lambda: self.move(task.id, TaskStatus.TIMED_OUT))
        record = task.record()
        script = next((script for script in self.scripts if script.fits(record)), None)
        if script is None:
            if self.scripts:
                logger.warning("no script matches the task %r, so it will not be answered", task.asked["task"])
            return
        script.use(record)
        delay = script.delay or 0.0
        if script.ends == TaskStatus.TIMED_OUT and script.delay is None:
            delay = timeout
        for order, status in enumerate(script.way):
            at = begun + delay * order / len(script.way)
            self._at(at, task, lambda status=status: self.move(task.id, status))  # type: ignore[misc]  # a loop's closure
        if script.ends == TaskStatus.COMPLETED:
            response = script.response_to(record)
            who, user_id, channel = script.answerer_of(record), script.user_id, script.channel
            called_back = channel in CALLED_BACK
            self._at(
                begun + delay,
                task,
                lambda: self.complete(task.id, response, by=who, user_id=user_id, via=channel, called_back=called_back),
            )
        elif script.ends is not None:
            self._at(begun + delay, task, lambda ends=script.ends: self.move(task.id, ends))  # type: ignore[misc]

    def _at(self, at: float, task: FakeTask, action: Callable[[], object]) -> None:
        heapq.heappush(self._plan, _Planned(at, next(self._order), task, action))

    def catch_up(self) -> float | None:
        """Run the planned events that are due. Return the time of the next one on the clock, or None."""
        with self.lock:
            while self._plan:
                planned = self._plan[0]
                if planned.task.terminal or planned.task.id not in self.tasks:
                    heapq.heappop(self._plan)
                elif planned.at <= self._clock.now():
                    heapq.heappop(self._plan).action()
                else:
                    return planned.at
        return None

    def next_change(self, task_id: str) -> float | None:
        """Return when a task changes next, on the clock. None: it has ended, or is unknown."""
        with self.lock:
            if task_id not in self.tasks or self.tasks[task_id].terminal:
                return None
            return min((planned.at for planned in self._plan if planned.task.id == task_id), default=None)

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call the watcher after every change. Return a function that ends this."""
        with self.lock:
            self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def notify(self) -> None:
        """Call all watchers, after a change or a move of time."""
        with self.lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()


def _z(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _naive(moment: datetime | None) -> str | None:
    return None if moment is None else moment.replace(tzinfo=None).isoformat()
