"""Several people, one decision: `quorum` and `escalate`, over any `await_human`.

They ask through a function that is passed to them and do not depend on where they run: the same call works in a script,
in a Temporal workflow and in tests. They iterate over no sets and use no clock but the client's, so they are
deterministic where replay needs it.

Laws:

- A person who has not answered has not approved.
- A quorum counts people who answered, not questions.
- A question that is no longer needed is cancelled, so that no person works on it in vain.
- No failure ends in "approved".
"""

import asyncio
import hashlib
import inspect
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from awaithumans_core import clock as clocks
from awaithumans_core.answerers import SHOWN_CHARS, addresses, counted_form, identifiers, lookalike_reason
from awaithumans_core.errors import AnswererNotAllowedError, AwaitHumansError, InvalidTaskError, QuestionEndedError
from awaithumans_core.group_context import Group, deciding
from awaithumans_core.http.connections import running_loop
from awaithumans_core.outcome import Outcome
from awaithumans_core.temporal_patches import applies

T = TypeVar("T")

Person = str | Mapping[str, Any]
"""The assignee of a question: an e-mail address, or another form that `assign_to` accepts."""


class AnswerNotNeeded:
    """Argument of the cancellation of a question whose answer the other answers have made unnecessary."""

    def __str__(self) -> str:
        return "the answer is not needed any more"


NOT_NEEDED = AnswerNotNeeded()


def is_not_needed(stop: BaseException) -> bool:
    """Whether a question was cancelled because its answer is not needed. Its `await_human` then withdraws it."""
    return any(isinstance(argument, AnswerNotNeeded) for argument in stop.args)


@dataclass(frozen=True)
class Vote(Generic[T]):
    """The result of one person's question."""

    person: Person
    """The person to whom the question was assigned. The person who answered is in `answered_by`."""
    said: Literal["yes", "no", "nothing"]
    """The vote. `nothing`: the question timed out or was cancelled or deleted, or its answer does not fit or count."""
    answer: T | None = None
    error: QuestionEndedError | None = None
    """Why the vote is `nothing`. `AnswererNotAllowedError`: the person has answered before, or is not known."""
    outcome: Outcome | None = None
    """How the question ended. None if that is not known."""

    @property
    def answered_by(self) -> str | None:
        """The e-mail address that is recorded for the answer."""
        return None if self.outcome is None else self.outcome.completed_by_email

    @property
    def answered_at(self) -> datetime | None:
        """When the question was answered (UTC)."""
        return None if self.outcome is None else self.outcome.completed_at

    @property
    def channel(self) -> str | None:
        """The channel of the answer: `dashboard`, `email`, `slack`, ..."""
        return None if self.outcome is None else self.outcome.completed_via_channel


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """The result of a quorum. It is true if, and only if, enough people have voted yes."""

    reached: bool
    """Whether enough people have voted yes."""
    votes: tuple[Vote[T], ...] = field(default=())
    """The votes in the order of their arrival. People whose answer was no longer needed have no vote here."""

    def __bool__(self) -> bool:
        return self.reached


async def quorum(
    needed: int,
    people: Sequence[Person],
    ask: Callable[..., Awaitable[T]],
    *,
    yes: Callable[[T], bool],
    idempotency_key: str | None = None,
    only_assignee: bool = False,
    groups: bool = False,
    count_unnamed: bool = False,
) -> Verdict[T]:
    """Ask several people at once, until enough have voted yes or enough yes votes have become impossible.

    The questions of the others are then cancelled.

    The people who answered are counted, by the user id and the e-mail address recorded with each answer. Further
    answers of the same person are reported and do not count, except that a no replaces that person's yes. Addresses
    that differ only in letter case, dots at the end, compatibility characters or sub-address (`anna+1@`) are one
    person. The answer of a person who was not asked counts, too, unless `only_assignee` is set.

    Args:
        needed: The number of yes votes that are needed.
        people: The people to ask, each once: an e-mail address or `{"user_id": ...}`.
        ask: Any `await_human` with all arguments but `assign_to`, for instance bound with `functools.partial`. It is
            called with `return_outcome=True`.
        yes: Returns whether an answer is a yes.
        idempotency_key: Identifies the decision, so that a restarted script resumes it. Give it here, not to `ask`:
            every person has a question of their own, and the key of each question is derived from this one.
        only_assignee: Accept each person's own answer only, as `await_human` does with this option: after another
            person's answer the question is asked again, up to `max_reasks` times.
        groups: Whether `people` may contain groups (several addresses, a pool, a role). Each group has one question,
            which one person answers.
        count_unnamed: Whether an answer that is recorded without an answerer counts as the answer of the person asked,
            for instance one that your own page submits with the API and no `completed_by_email`.

    Returns:
        A `Verdict`. `if verdict:` is true only if the quorum was reached.

    Raises:
        InvalidTaskError: the quorum is impossible, or two of the people may be the same person.
        AwaitHumansError: a question could not be asked at all. The other questions are cancelled.

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
    if (problem := _problem(people, groups=groups)) is not None and _counts_people("people"):
        raise InvalidTaskError(problem)
    _refuse_shared_key(ask)
    _refuse_without_outcome(ask)

    asked = [address for person in people for address in _addresses(person)]
    options = {"return_outcome": True, **({"only_assignee": True} if only_assignee else {})}
    ballots: list[_Ballot[T]] = []
    votes: list[Vote[T]] = []
    for_it = 0
    async with _asking("quorum") as questions:
        for person in people:
            questions.ask(person, ask(assign_to=person, **options, **_key(idempotency_key, _name(person))))
        for heard in range(1, len(people) + 1):
            vote = _vote(*await questions.next(), yes, whole=_wants_outcome(ask))
            ballots.append(_Ballot(vote, _voter(vote, ballots, asked, count_unnamed=count_unnamed)))
            votes = _counted(ballots)
            for_it = sum(vote.said == "yes" for vote in votes)
            if for_it >= needed or for_it + len(people) - heard < needed:
                break
    return Verdict(for_it >= needed, tuple(votes))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an escalation: who is asked, and when."""

    assign_to: Person | None = None
    """The person to ask. If it is the same person as before, the step is a reminder."""
    after: float | timedelta = 0
    """Time from the beginning to this step: seconds or a timedelta. It begins earlier if no open question is left."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further options of this step's question: `notify`, another `task` text, ..."""


async def escalate(
    ask: Callable[..., Awaitable[T]],
    steps: Sequence[Step],
    *,
    within: float | timedelta,
    otherwise: T,
    idempotency_key: str | None = None,
) -> T:
    """Ask one person after another, at set times, until one answers. The first answer counts, from any person.

    To accept only the answers of those who were asked, give `ask` the option `only_assignee=True`.

    The questions of earlier steps stay open until a person has answered. When the whole time is up, `otherwise` is the
    decision. It must be given, and nothing else replaces an answer.

    Args:
        ask: Any `await_human` with all arguments but `assign_to` and `timeout_seconds`.
        steps: The people to ask and when, in this order.
        within: The whole time: seconds or a timedelta. The last step needs a minute of it.
        otherwise: The decision if no person has answered.
        idempotency_key: Identifies the decision, as for `quorum`. The key of each step's question is derived from it.

    Returns:
        The first answer, or `otherwise`.

    Raises:
        InvalidTaskError: there are no steps, they are not in order, or one has less than a minute.
        AwaitHumansError: a question could not be asked at all. The other questions are cancelled.

    Example:
        decision = await escalate(
            partial(await_human, task="Refund $250?", response_schema=Decision),
            [Step("anna@example.com"), Step("lead@example.com", after=timedelta(hours=4))],
            within=timedelta(days=1),
            otherwise=Decision(approved=False),
        )
    """
    whole, starts = schedule(steps, within)
    _refuse_shared_key(ask)

    async with _asking("escalate") as questions:
        for place, (step, start) in enumerate(zip(steps, starts, strict=True)):
            options = {"assign_to": step.assign_to, **step.options, **step_key(idempotency_key, place)}
            questions.ask(place, ask(timeout_seconds=whole - start, **options))
            pause = starts[place + 1] - start if place + 1 < len(steps) else None
            answer: tuple[T] | None = await _first(questions, pause)
            if answer is not None:
                return answer[0]
    return otherwise


def schedule(steps: Sequence[Step], within: float | timedelta) -> tuple[float, list[float]]:
    """Return the whole time of an escalation and the start times of its steps, in seconds.

    Raises:
        InvalidTaskError: there are no steps, they are not in order, or the last one has less than a minute.
    """
    whole, starts = _seconds(within), [_seconds(step.after) for step in steps]
    if not steps or starts != sorted(starts) or starts[0] < 0:
        raise InvalidTaskError("an escalation needs steps, each after the one before")
    if whole - starts[-1] < 60:
        raise InvalidTaskError(f"the last step begins after {starts[-1]:g} s of {whole:g} s: people need a minute")
    return whole, starts


def step_key(idempotency_key: str | None, place: int) -> dict[str, str]:
    """Return the option with the key of one step's question; empty if the escalation has no key."""
    return _key(idempotency_key, f"step:{place}")


async def _first(questions: "_OpenQuestions[T]", seconds: float | None) -> tuple[T] | None:
    """Return the first answer within `seconds`, in a tuple; None if there is none or no question is left open."""
    if seconds is None:
        while questions.left:
            _, outcome = await questions.next()
            if not isinstance(outcome, QuestionEndedError):
                return (outcome,)
        return None
    alarm = asyncio.ensure_future(clocks.SYSTEM.sleep(seconds))
    try:
        while questions.left:
            came = await questions.next_or(alarm)
            if came is None:
                return None
            if not isinstance(came[1], QuestionEndedError):
                return (came[1],)
        return None
    finally:
        alarm.cancel()


class _OpenQuestions(Generic[T]):
    """Questions that are being asked, and their results in the order of arrival."""

    def __init__(self, group: Group) -> None:
        self.left = 0
        self._group = group
        self._tasks: list[asyncio.Future[T]] = []
        self._suspended: list[BaseException] = []
        """Errors of the calls that cannot wait in place. One call may ask several questions."""
        self._ended: list[tuple[Any, asyncio.Future[T]]] = []
        self._news = asyncio.Event()

    def ask(self, who: Any, asking: Awaitable[T]) -> None:
        """Start one more question for `who`."""
        task = asyncio.ensure_future(asking)
        self.left += 1
        self._tasks.append(task)
        task.add_done_callback(lambda done: self._end(who, done))

    def _end(self, who: Any, task: "asyncio.Future[T]") -> None:
        self._ended.append((who, task))
        self._news.set()

    async def next(self) -> tuple[Any, T | QuestionEndedError]:
        """Wait for the next question to end. Return whose it is, and its answer or `QuestionEndedError`.

        Any other error is raised. The error of a call that cannot wait in place is raised only when all remaining calls
        are such calls.
        """
        while True:
            while not self._ended:
                if self.left and self.left == len(self._suspended):
                    raise self._suspended[0]
                self._news.clear()
                await self._news.wait()
            who, task = self._ended.pop(0)
            failure = None if task.cancelled() else task.exception()
            if failure is not None and self._group.is_suspended(failure):
                self._suspended.append(failure)
                continue
            self.left -= 1
            try:
                return who, task.result()
            except QuestionEndedError as ended:
                return who, ended

    async def next_or(self, alarm: "asyncio.Future[None]") -> tuple[Any, T | QuestionEndedError] | None:
        """Wait for the next question to end, as `next` does. Return None if the alarm is done first."""
        alarm.add_done_callback(lambda _: self._news.set())
        while not self._ended:
            if alarm.done():
                return None
            self._news.clear()
            await self._news.wait()
        return await self.next()

    def stop(self, why: AnswerNotNeeded | None) -> "list[asyncio.Future[T]]":
        """Request the cancellation of all open questions, and return them."""
        open_ones = [task for task in self._tasks if not task.done()]
        for task in open_ones:
            task.cancel(why)
        return open_ones

    async def cancel(self, why: AnswerNotNeeded | None) -> None:
        """Cancel all open questions, and wait until they have ended."""
        await asyncio.gather(*self.stop(why), return_exceptions=True)


@asynccontextmanager
async def _asking(kind: Literal["quorum", "escalate"]) -> "AsyncGenerator[_OpenQuestions[Any]]":
    """Provide a set of questions, all of which are over when the block ends, in whatever way it ends."""
    running_loop()
    with deciding(kind) as group:
        questions = _OpenQuestions[Any](group)
        try:
            yield questions
        except AwaitHumansError:
            await questions.cancel(NOT_NEEDED)
            await group.cancel_suspended()
            raise
        except Exception:
            # Nothing is awaited here. A workflow with a bug is suspended in its current state, and continues with its
            # votes once the bug is fixed. A LangGraph node that is interrupted leaves its questions open, too.
            questions.stop(NOT_NEEDED)
            raise
        except asyncio.CancelledError:  # the caller is stopped: each question handles its own cancellation
            await questions.cancel(None)
            raise
        await questions.cancel(NOT_NEEDED)
        await group.cancel_suspended()


@dataclass(frozen=True, slots=True)
class _Ballot(Generic[T]):
    """An answer, before it is known whether it counts."""

    vote: Vote[T]
    voter: frozenset[str]
    """Identifiers of the person who answered. Empty: there is no answer, or the person is unknown."""


def _counted(ballots: "Sequence[_Ballot[T]]") -> list[Vote[T]]:
    """Return the votes. One vote of each person counts: the first no if there is one, otherwise the first answer."""
    counts = {
        min(places, key=lambda place: (ballots[place].vote.said != "no", place))
        for places in _by_person([ballot.voter for ballot in ballots])
    }
    return [
        ballot.vote if place in counts or ballot.vote.said == "nothing" else _without_effect(ballot)
        for place, ballot in enumerate(ballots)
    ]


def _by_person(voters: Sequence[frozenset[str]]) -> list[list[int]]:
    """Return the positions of each person's answers.

    An answer may join two others, one with its address and one with its user id, as answers of one person.
    """
    people: list[tuple[frozenset[str], list[int]]] = []
    for place, voter in enumerate(voters):
        same = [person for person in people if person[0] & voter]
        names = voter.union(*(known for known, _ in same))
        places = [earlier for _, their in same for earlier in their]
        if voter:
            people = [*(person for person in people if person not in same), (names, [*places, place])]
    return [places for _, places in people]


def _without_effect(ballot: "_Ballot[T]") -> Vote[T]:
    vote, email = ballot.vote, ballot.vote.answered_by
    task_id = None if vote.outcome is None else vote.outcome.task_id
    if ballot.voter:
        why = f"{(email or 'the same person')[:SHOWN_CHARS]!a} has answered another question of this quorum"
        advice = "with only_assignee=True and max_reasks the person asked is asked again"
    else:
        why = f"it is not known who answered (completed_by_email is {email and email[:SHOWN_CHARS]!a})"
        advice = "let people answer where they are signed in, or give count_unnamed=True"
    text = f"the answer to task {task_id} does not count: {why}, and a quorum counts each person once; {advice}"
    error = AnswererNotAllowedError(text, task_id=task_id, outcome=vote.outcome, answered_by=email)
    return replace(vote, said="nothing", answer=None, error=error)


def _voter(
    vote: Vote[Any], earlier: "Sequence[_Ballot[Any]]", asked: Sequence[str], *, count_unnamed: bool
) -> frozenset[str]:
    """Return the identifiers of the person who answered; empty if there is no answer or the person is unknown."""
    if vote.said == "nothing" or vote.outcome is None:
        return frozenset()
    voter = identifiers(vote.outcome, asked)
    if count_unnamed and not voter and not vote.answered_by:
        voter = frozenset(map(counted_form, _addresses(vote.person))) or frozenset({f"asked:{_name(vote.person)}"})
    counts = bool(voter) and not any(ballot.voter & voter for ballot in earlier)
    return voter if counts or _counts_people(vote.outcome.task_id) else frozenset({f"task:{vote.outcome.task_id}"})


def _counts_people(what: str) -> bool:
    """Whether people are counted. False in the replay of a workflow in which an earlier release counted questions."""
    return applies(f"awaithumans-quorum-counts-people:{what}")


def _problem(people: Sequence[Person], *, groups: bool) -> str | None:
    """Return why these people cannot be counted; None if they can."""
    mailboxes: dict[str, str] = {}
    for person in people:
        named = _addresses(person)
        if not groups and len(named) != 1 and not (isinstance(person, Mapping) and "user_id" in person):
            return f"{person!r} is not one person: name people one by one, or give groups=True"
        for email in named:
            if (why := lookalike_reason(email)) is not None:
                return f"the address {email!a} may be read as another one: {why}. Write it as the server has it"
        if len(named) == 1 and (other := mailboxes.get(counted_form(named[0]))) is not None:
            return f"{other!a} and {named[0]!a} are one mailbox, and would have two votes: name each person once"
        mailboxes |= {counted_form(named[0]): named[0]} if len(named) == 1 else {}
    return None


def _addresses(person: Person) -> tuple[str, ...]:
    return (person,) if isinstance(person, str) else addresses(person)


def _vote(person: Person, ended: Any, yes: Callable[[T], bool], *, whole: bool) -> Vote[T]:
    """Return the vote of a question that has ended.

    With `whole`, the caller's `yes` takes the pair of answer and outcome.
    """
    if isinstance(ended, QuestionEndedError):
        outcome = ended.outcome if isinstance(ended.outcome, Outcome) else None
        return Vote(person, "nothing", error=ended, outcome=outcome)
    if not _has_outcome(ended):
        raise InvalidTaskError(f"ask returned {type(ended).__name__}: {_OUTCOME}")
    answer, outcome = ended
    taken: T = ended if whole else answer
    return Vote(person, "yes" if yes(taken) is True else "no", taken, outcome=outcome)


def _has_outcome(ended: Any) -> bool:
    return isinstance(ended, tuple) and len(ended) == 2 and isinstance(ended[1], Outcome)  # pyright: ignore[reportUnknownArgumentType]


_OUTCOME = (
    "a quorum counts who answered, so ask has to take return_outcome=True and return (answer, Outcome), as every "
    "await_human does. A function of your own passes its keyword arguments on: async def ask(**options)"
)


def _wants_outcome(ask: Callable[..., Any]) -> bool:
    """Whether the caller asked for outcomes, so that `yes` takes them, too."""
    return isinstance(ask, partial) and bool(ask.keywords.get("return_outcome"))


def _refuse_without_outcome(ask: Callable[..., Any]) -> None:
    taken = inspect.signature(ask).parameters.values()
    if not any(each.name == "return_outcome" or each.kind is each.VAR_KEYWORD for each in taken):
        raise InvalidTaskError(f"ask does not take return_outcome: {_OUTCOME}")


def _refuse_shared_key(ask: Callable[..., Any]) -> None:
    if isinstance(ask, partial) and "idempotency_key" in ask.keywords:
        raise InvalidTaskError(
            "one idempotency_key for all would make them one question: give it as idempotency_key= beside ask, and "
            "each question gets a key made from it"
        )


def _key(idempotency_key: str | None, part: str) -> dict[str, str]:
    return {} if idempotency_key is None else {"idempotency_key": f"{idempotency_key}:{part}"}


def _who(person: Person) -> str:
    """Return an identifier of a person that is the same for every spelling of one address."""
    address = person if isinstance(person, str) else person.get("email")
    return address.strip().casefold() if isinstance(address, str) else _name(person)


def _name(person: Person) -> str:
    """Return a name for a person that does not depend on their position in a list."""
    if isinstance(person, str):
        return person
    return hashlib.sha256(json.dumps(dict(person), sort_keys=True).encode()).hexdigest()[:16]


def _seconds(given: float | timedelta) -> float:
    return given.total_seconds() if isinstance(given, timedelta) else float(given)
