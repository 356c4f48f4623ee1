"""The callbacks of a `FakeHumans`: signed, sent in sequence, and retried on the server's schedule."""

import math
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import httpx

from awaithumans_core.clock import Clock
from awaithumans_core.signing import KEY_BYTES, SIGNATURE_HEADER, TASK_ID_HEADER, sign
from awaithumans_core.testing.faults import CallbackFault
from awaithumans_core.testing.task_server_state import FakeTask

Schedule: TypeAlias = Literal["at once", "server"]
"""When callbacks are sent. `server`: every 5 s, up to 50 in sequence. Both retry on the server's schedule."""

TICK_SECONDS = 5.0
BATCH = 50
ATTEMPT_SECONDS = 10.0
"""Maximum duration of one attempt in seconds."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
RETRY_SECONDS = (
    *(30.0, 1 * MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE),
    *(1 * HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, DAY),
)
"""Pauses after the first failure, the second, and so on. The last one repeats."""

ABANDONED_SECONDS = 3 * DAY


@dataclass
class Delivery:
    """One callback. Tests may read its attributes."""

    task_id: str
    url: str
    body: bytes
    queued_at: float
    next_at: float
    """Time of the next attempt, on the fake's clock."""
    task: FakeTask = field(repr=False)
    fault: CallbackFault | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: Literal["pending", "succeeded", "abandoned", "lost"] = "pending"
    attempts: int = 0
    last_status_code: int | None = None
    last_error: str | None = None
    behind: int | None = None
    """Number of callbacks that must have been sent before it. None: no limit."""


class CallbackQueue:
    """Queue of the callbacks that have to be sent."""

    def __init__(self, clock: Clock, key: bytes, schedule: Schedule, *, delivered: Callable[[FakeTask], None]) -> None:
        self.deliveries: list[Delivery] = []
        self._clock = clock
        self._key = key
        self._schedule = schedule
        self._delivered = delivered
        self._sent = 0
        self._not_before = 0.0

    def enqueue(self, task: FakeTask, fault: CallbackFault | None) -> None:
        """Queue a callback with the end of this task, if the task has a callback URL."""
        url = task.asked.get("callback_url")
        if not url:
            return
        now = self._clock.now()
        delivery = Delivery(task.id, url, task.callback_body(), now, self._tick(now), task, fault)
        if fault is not None:
            delivery.next_at += fault.seconds
            delivery.status = "lost" if fault.name == "lost" else "pending"
            delivery.behind = self._sent + 1 if fault.name == "reordered" else None
        self.deliveries.append(delivery)

    def due(self) -> float | None:
        """Return when the next callback is due, on the fake's clock. None: none is pending."""
        waiting = [delivery.next_at for delivery in self._waiting()]
        return max(min(waiting), self._not_before) if waiting else None

    async def send_due(self, http: httpx.AsyncClient) -> None:
        """Send the callbacks that are due, in sequence. A failure does not stop the others."""
        now = self._clock.now()
        if now < self._not_before:
            return
        batch = sorted((each for each in self._waiting() if each.next_at <= now), key=lambda each: each.next_at)[:BATCH]
        for delivery in batch:
            await self._send(http, delivery)
        if batch and self._schedule == "server":
            self._not_before = self._clock.now() + TICK_SECONDS

    def _waiting(self) -> list[Delivery]:
        pending = [delivery for delivery in self.deliveries if delivery.status == "pending"]
        return [delivery for delivery in pending if delivery.behind is None or self._sent >= delivery.behind]

    async def _send(self, http: httpx.AsyncClient, delivery: Delivery) -> None:
        fault = delivery.fault.name if delivery.fault is not None and not delivery.attempts else None
        delivery.attempts += 1
        key = secrets.token_bytes(KEY_BYTES) if fault == "bad signature" else self._key
        headers = {
            "Content-Type": "application/json",
            SIGNATURE_HEADER: sign(delivery.body, key),
            TASK_ID_HEADER: delivery.task_id,
        }
        for _ in range(2 if fault == "duplicate" else 1):
            try:
                reply = await http.post(delivery.url, content=delivery.body, headers=headers)
                delivery.last_status_code, delivery.last_error = reply.status_code, None
                if reply.status_code >= 400:
                    delivery.last_error = f"HTTP {reply.status_code}"
            except Exception as error:  # also an error of an in-process receiver, or a malformed address
                delivery.last_status_code, delivery.last_error = None, f"{type(error).__name__}: {error}"
        self._sent += 1
        now = self._clock.now()
        if delivery.last_error is None:  # a redirect counts as delivered, as with the server
            delivery.status = "succeeded"
            self._delivered(delivery.task)
        elif now - delivery.queued_at >= ABANDONED_SECONDS:
            delivery.status = "abandoned"
        else:
            delivery.next_at = self._tick(now + RETRY_SECONDS[min(delivery.attempts, len(RETRY_SECONDS)) - 1])

    def _tick(self, at: float) -> float:
        return math.ceil(at / TICK_SECONDS) * TICK_SECONDS if self._schedule == "server" else at
