"""Drives a flow from a script: replies in, steps out, on a clock that only moves when the flow waits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic_core import to_json

from awaithumans_core.flow import Call, Flow, Lost, Notice, Patience, Pause, Reply, Step
from awaithumans_core.retry import Backoff

R = TypeVar("R")


@dataclass(frozen=True)
class After:
    """This comes of a call, but only after so many seconds."""

    seconds: float
    came: Reply | Lost


Event = Reply | Lost | After


def reply(status: int = 200, body: object = None, **headers: str) -> Reply:
    """A reply with a JSON body, or with these very bytes. `retry_after="7"` becomes the header `retry-after`."""
    raw = body if isinstance(body, bytes) else to_json(body)
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def record(status: str = "created", **fields: Any) -> dict[str, Any]:
    """A task record, as create, get and cancel answer with it."""
    return {"id": "task-1", "status": status, "idempotency_key": "question-1"} | fields


def polled(status: str = "created", response: Mapping[str, Any] | None = None) -> Reply:
    """What a poll answers: it names neither the task nor its key."""
    return reply(200, {"status": status, "response": response, "completed_at": None, "timed_out_at": None})


def held(status: str = "created") -> After:
    """A poll that was held for its 25 seconds while nothing ended."""
    return After(25.0, polled(status))


START = 1000.0
"""What the clock shows when a conversation begins."""


@dataclass
class Clock:
    """Seconds that pass only when somebody waits."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Talk:
    """One conversation: what will be answered, in order, and what was said.

    `then` answers every call beyond the script: a reply, or a function of the call. Without it the script must be
    exactly as long as the conversation.
    """

    script: Sequence[Event]
    then: Event | Callable[[Call], Event] | None = None
    seconds: float = 60.0
    steps: list[Step] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.unheard = list(self.script)
        self.called_at: list[float] = []
        """When each call was made, in seconds after the beginning."""

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
    def noticed(self) -> list[str]:
        return [step.outcome.status for step in self.steps if isinstance(step, Notice)]

    @property
    def said(self) -> list[str]:
        """The calls in short: `GET /api/tasks/task-1`."""
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
            assert not self.unheard, f"the flow ended without hearing {self.unheard}"
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
                if not isinstance(event, After):
                    return event
                self.clock.now += event.seconds
                return event.came

    def _event(self, call: Call) -> Event:
        if self.unheard:
            return self.unheard.pop(0)
        assert self.then is not None, f"nobody expected {call}"
        return self.then(call) if callable(self.then) else self.then
