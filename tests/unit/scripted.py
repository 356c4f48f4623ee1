"""Driver of a flow from a script of replies, on a clock that moves only when the flow waits."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic_core import to_json

from awaithumans_core.flow import Call, Flow, Lost, Notice, Patience, Pause, Reply, Step
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff

R = TypeVar("R")


@dataclass(frozen=True)
class Delayed:
    """The result of a call that takes this many seconds."""

    seconds: float
    event: Reply | Lost


Event = Reply | Lost | Delayed


def reply(status: int = 200, body: object = None, **headers: str) -> Reply:
    """Return a reply with a JSON body, or these bytes; `retry_after="7"` becomes the header `retry-after`."""
    raw = body if isinstance(body, bytes) else to_json(body)
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def record(status: str = "created", **fields: Any) -> dict[str, Any]:
    """Return a task record as the server sends it for create, get and cancel."""
    return {"id": "task-1", "status": status, "idempotency_key": "question-1"} | fields


def poll_reply(status: str = "created", response: Mapping[str, Any] | None = None) -> Reply:
    """Return a poll's reply, which names neither the task nor its key."""
    return reply(200, {"status": status, "response": response, "completed_at": None, "timed_out_at": None})


def held_poll(status: str = "created") -> Delayed:
    """Return a poll that was held for its 25 seconds without the task ending."""
    return Delayed(25.0, poll_reply(status))


async def driven(
    steps: Flow[R],
    answer: Callable[[Call], Awaitable[Reply | Lost]],
    sleep: Callable[[float], Awaitable[None]],
    *,
    on_status: Callable[[Outcome], None] | None = None,
    slots: asyncio.Semaphore | None = None,
) -> R:
    """Drive a flow as `TaskClient.run` does, with the calls answered by a server in memory."""
    heard: Reply | Lost | None = None
    try:
        while True:
            step, heard = steps.send(heard), None
            match step:
                case Call():
                    async with slots or nullcontext():
                        heard = await answer(step)
                case Pause():
                    await sleep(step.seconds)
                case Notice(outcome):
                    if on_status is not None:
                        on_status(outcome)
    except StopIteration as end:
        return cast("R", end.value)


START = 1000.0
"""Time on the clock when a conversation starts."""


@dataclass
class Clock:
    """A clock that advances only when the flow waits."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Conversation:
    """The scripted replies of one conversation and a record of its steps.

    `then` answers every call beyond the script: a reply, or a function of the call. Without it the script must be
    exactly as long as the conversation.
    """

    script: Sequence[Event]
    then: Event | Callable[[Call], Event] | None = None
    seconds: float = 60.0
    steps: list[Step] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.unused = list(self.script)
        self.called_at: list[float] = []
        """When each call was made, in seconds after the start."""

    @property
    def patience(self) -> Patience:
        return Patience(self.seconds, Backoff(first=0.5, factor=2.0, most=30.0, jitter=0.0), self.clock)

    @property
    def calls(self) -> list[Call]:
        return [step for step in self.steps if isinstance(step, Call)]

    @property
    def pauses(self) -> list[Pause]:
        return [step for step in self.steps if isinstance(step, Pause)]

    @property
    def reported_statuses(self) -> list[str]:
        return [step.outcome.status for step in self.steps if isinstance(step, Notice)]

    @property
    def requests(self) -> list[str]:
        """The calls in short form, such as `GET /api/tasks/task-1`."""
        return [f"{call.method} {call.url}" for call in self.calls]

    def run(self, flow: Flow[R]) -> R:
        """Drive the flow to its end and return what it returns."""
        answer: Reply | Lost | None = None
        try:
            while True:
                step = flow.send(answer)
                self.steps.append(step)
                assert len(self.steps) < 10_000, f"the flow does not end: {step}"
                answer = self._answer(step)
        except StopIteration as end:
            assert not self.unused, f"the flow ended with unused replies {self.unused}"
            return cast("R", end.value)

    def _answer(self, step: Step) -> Reply | Lost | None:
        match step:
            case Pause(seconds=seconds):
                self.clock.now += seconds
                return None
            case Notice():
                return None
            case Call():
                self.called_at.append(self.clock.now - START)
                event = self._event(step)
                if not isinstance(event, Delayed):
                    return event
                self.clock.now += event.seconds
                return event.event

    def _event(self, call: Call) -> Event:
        if self.unused:
            return self.unused.pop(0)
        assert self.then is not None, f"unexpected call {call}"
        return self.then(call) if callable(self.then) else self.then
