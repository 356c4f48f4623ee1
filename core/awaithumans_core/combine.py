"""Several people, one decision: `quorum` and `escalate`, over any `await_human`.

They ask through a function they are given and know nothing of where they run: the same call works in a script, in a
Temporal workflow and in tests. They use no sets and no clock but the client's, so they are deterministic where that
matters.

Laws: whoever has not answered has not said yes; what is not needed any more is cancelled, so that nobody works for
nothing; and no way of going wrong ends in "approved".
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from awaithumans_core import clock as clocks
from awaithumans_core.errors import AwaitHumansError, InvalidTaskError, QuestionEndedError

T = TypeVar("T")

Person = str | Mapping[str, Any]
"""Whom a question is assigned to: an e-mail address, or what else `assign_to` takes."""

NOT_NEEDED = "the answer is not needed any more"
"""Said when a question is cancelled because of the others; a script's `await_human` then withdraws it."""


@dataclass(frozen=True)
class Vote(Generic[T]):
    """What became of one person's question."""

    person: Person
    said: Literal["yes", "no", "nothing"]
    """`nothing`: timed out, cancelled, deleted, or an answer that does not fit."""
    answer: T | None = None
    error: QuestionEndedError | None = None


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """What a quorum came to. True if, and only if, enough people have said yes."""

    reached: bool
    """Whether enough people have said yes."""
    votes: tuple[Vote[T], ...] = field(default=())
    """Of those who were heard, in the order they came; who was not needed any more is not among them."""

    def __bool__(self) -> bool:
        return self.reached


async def quorum(
    needed: int,
    people: Sequence[Person],
    ask: Callable[..., Awaitable[T]],
    *,
    yes: Callable[[T], bool],
    idempotency_key: str | None = None,
) -> Verdict[T]:
    """Ask all of these people at once, until enough have said yes, or so many no that it cannot come to that.

    The questions of the others are cancelled then.

    Args:
        needed: How many have to say yes.
        people: Whom to ask, each once.
        ask: Any `await_human` with everything but `assign_to`, for instance with `functools.partial`.
        yes: Whether an answer is a yes.
        idempotency_key: Names the decision, so that a script that is started again picks it up. Give it here, not to
            `ask`: every person has a question of their own, and its key is made from this one.

    Returns:
        A `Verdict`; `if verdict:` is true only when the quorum was reached.

    Raises:
        InvalidTaskError: no such quorum is possible.
        AwaitHumansError: what keeps questions from being asked at all; the others are cancelled.

    Example:
        approved = await quorum(
            2,
            ["anna@example.com", "ben@example.com", "carla@example.com"],
            partial(await_human, task="Release 4.2?", response_schema=Decision, timeout_seconds=86400),
            yes=lambda decision: decision.approved,
        )
    """
    if not 1 <= needed <= len(people):
        raise InvalidTaskError(f"a quorum of {needed} out of {len(people)} people cannot be reached, or is none")
    if len(set(map(_who, people))) < len(people):
        raise InvalidTaskError("a person is among the people twice, and would have two votes")
    _refuse_shared_key(ask)

    votes: list[Vote[T]] = []
    for_it = 0
    async with _asking() as crowd:
        for person in people:
            crowd.ask(person, ask(assign_to=person, **_key(idempotency_key, _name(person))))
        for heard in range(1, len(people) + 1):
            votes.append(_vote(*await crowd.next(), yes))
            for_it = sum(vote.said == "yes" for vote in votes)
            if for_it >= needed or for_it + len(people) - heard < needed:
                break
    return Verdict(for_it >= needed, tuple(votes))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an escalation: who is asked, and when."""

    assign_to: Person | None = None
    """Who. The same person again is a reminder."""
    after: float | timedelta = 0
    """How long after the beginning: seconds or a timedelta. Earlier when nobody is left who could answer."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else this step's question has of its own: `notify`, another `task` text, ..."""


async def escalate(
    ask: Callable[..., Awaitable[T]],
    steps: Sequence[Step],
    *,
    within: float | timedelta,
    otherwise: T,
    idempotency_key: str | None = None,
) -> T:
    """Ask the first, after a while the next, and so on; the first answer counts, whoever gives it.

    Those who were asked before keep their question until somebody has answered. When the whole time is up, `otherwise`
    is the decision: it has to be stated, and nothing else stands in for an answer.

    Args:
        ask: Any `await_human` with everything but `assign_to` and `timeout_seconds`.
        steps: Whom to ask and when, in this order.
        within: The whole time: seconds or a timedelta. The last step needs a minute of it.
        otherwise: The decision when nobody has answered.
        idempotency_key: As for `quorum`.

    Returns:
        The first answer, or `otherwise`.

    Raises:
        InvalidTaskError: there are no steps, they are not in order, or one has less than a minute.
        AwaitHumansError: what keeps questions from being asked at all; the others are cancelled.

    Example:
        decision = await escalate(
            partial(await_human, task="Refund $250?", response_schema=Decision),
            [Step("anna@example.com"), Step("lead@example.com", after=timedelta(hours=4))],
            within=timedelta(days=1),
            otherwise=Decision(approved=False),
        )
    """
    whole, starts = _seconds(within), [_seconds(step.after) for step in steps]
    if not steps or starts != sorted(starts) or starts[0] < 0:
        raise InvalidTaskError("an escalation needs steps, each after the one before")
    if whole - starts[-1] < 60:
        raise InvalidTaskError(f"the last step begins after {starts[-1]:g} s of {whole:g} s: people need a minute")
    _refuse_shared_key(ask)

    async with _asking() as crowd:
        for place, (step, start) in enumerate(zip(steps, starts, strict=True)):
            options = {"assign_to": step.assign_to, **step.options, **_key(idempotency_key, f"step:{place}")}
            crowd.ask(place, ask(timeout_seconds=whole - start, **options))
            pause = starts[place + 1] - start if place + 1 < len(steps) else None
            answer: tuple[T] | None = await _first(crowd, pause)
            if answer is not None:
                return answer[0]
    return otherwise


async def _first(crowd: "_Crowd[T]", seconds: float | None) -> tuple[T] | None:
    """The first answer within so many seconds, or while there is anybody who could give one."""
    if seconds is None:
        while crowd.left:
            _, outcome = await crowd.next()
            if not isinstance(outcome, QuestionEndedError):
                return (outcome,)
        return None
    alarm = asyncio.ensure_future(clocks.SYSTEM.sleep(seconds))
    try:
        while crowd.left:
            came = await crowd.next_or(alarm)
            if came is None:
                return None
            if not isinstance(came[1], QuestionEndedError):
                return (came[1],)
        return None
    finally:
        alarm.cancel()


class _Crowd(Generic[T]):
    """Questions under way, heard in the order their ends come."""

    def __init__(self) -> None:
        self.left = 0
        self._tasks: list[asyncio.Future[T]] = []
        self._ended: list[tuple[Any, asyncio.Future[T]]] = []
        self._news = asyncio.Event()

    def ask(self, who: Any, asking: Awaitable[T]) -> None:
        """One more."""
        task = asyncio.ensure_future(asking)
        self.left += 1
        self._tasks.append(task)
        task.add_done_callback(lambda done: self._end(who, done))

    def _end(self, who: Any, task: "asyncio.Future[T]") -> None:
        self._ended.append((who, task))
        self._news.set()

    async def next(self) -> tuple[Any, T | QuestionEndedError]:
        """Who has ended, and how. Raises what is no end of a question."""
        while not self._ended:
            self._news.clear()
            await self._news.wait()
        self.left -= 1
        who, task = self._ended.pop(0)
        try:
            return who, task.result()
        except QuestionEndedError as ended:
            return who, ended

    async def next_or(self, alarm: "asyncio.Future[None]") -> tuple[Any, T | QuestionEndedError] | None:
        """The same; None when the alarm rings before."""
        alarm.add_done_callback(lambda _: self._news.set())
        while not self._ended:
            if alarm.done():
                return None
            self._news.clear()
            await self._news.wait()
        return await self.next()

    def stop(self, why: str | None) -> "list[asyncio.Future[T]]":
        """Those that are still under way are to end."""
        open_ones = [task for task in self._tasks if not task.done()]
        for task in open_ones:
            task.cancel(why)
        return open_ones

    async def cancel(self, why: str | None) -> None:
        """The same, and they have ended."""
        await asyncio.gather(*self.stop(why), return_exceptions=True)


@asynccontextmanager
async def _asking() -> "AsyncGenerator[_Crowd[Any]]":
    """Questions that are over when the block is, however it ends."""
    crowd = _Crowd[Any]()
    try:
        yield crowd
    except AwaitHumansError:
        await crowd.cancel(NOT_NEEDED)
        raise
    except Exception:
        # Nothing is awaited: a workflow with a bug is suspended as it stands, and goes on with its votes once mended.
        crowd.stop(NOT_NEEDED)
        raise
    except asyncio.CancelledError:  # whoever asked is stopped: each question does what it does then
        await crowd.cancel(None)
        raise
    await crowd.cancel(NOT_NEEDED)


def _vote(person: Person, outcome: T | QuestionEndedError, yes: Callable[[T], bool]) -> Vote[T]:
    if isinstance(outcome, QuestionEndedError):
        return Vote(person, "nothing", error=outcome)
    return Vote(person, "yes" if yes(outcome) is True else "no", outcome)


def _refuse_shared_key(ask: Callable[..., Any]) -> None:
    if isinstance(ask, partial) and "idempotency_key" in ask.keywords:
        raise InvalidTaskError(
            "one idempotency_key for all would make them one question: give it as idempotency_key= beside ask, and "
            "each question gets a key made from it"
        )


def _key(idempotency_key: str | None, part: str) -> dict[str, str]:
    return {} if idempotency_key is None else {"idempotency_key": f"{idempotency_key}:{part}"}


def _who(person: Person) -> str:
    """The same for every way of writing one address."""
    address = person if isinstance(person, str) else person.get("email")
    return address.strip().casefold() if isinstance(address, str) else _name(person)


def _name(person: Person) -> str:
    """The same for the same person, whatever their place in a list."""
    if isinstance(person, str):
        return person
    return hashlib.sha256(json.dumps(dict(person), sort_keys=True).encode()).hexdigest()[:16]


def _seconds(given: float | timedelta) -> float:
    return given.total_seconds() if isinstance(given, timedelta) else float(given)
