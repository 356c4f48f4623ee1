"""The conversations with the task API and the relay, without a socket and without a clock.

A flow is a generator. It yields steps - a `Call` to send, a `Pause` to keep, a `Notice` to show - and is sent what came
of a call: a `Reply`, or `Lost` when no reply came. Two small drivers in `client.py` do the sending, one async and one
not, so every rule of the protocol is written once, here.

Law: a reply is the end of a question only if its own content names the question. Proxies and connections that are
shared by accident deliver replies to the wrong request. So an end is read from a record whose task id and idempotency
key are those of the question; a poll names neither, and only says when to read it. Where a server hides the key of a
record (null), the id still names the task; in reply to a create, the text and the payload have to be the question's.

The task API is the server's documented long-poll API: `GET /api/tasks/{id}/poll?timeout=25` holds the connection for up
to `timeout` seconds (1 to 30), answers at once on a terminal status, and otherwise says how the task stands so that the
client reconnects.
"""

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic.types import JsonValue

from awaithumans_core import clock as clocks
from awaithumans_core.binding import differences, parts, parts_asked
from awaithumans_core.deleted_tasks import Readings, Verdict
from awaithumans_core.errors import (
    ENGINE_UNKNOWN,
    AuthenticationError,
    AwaitHumansError,
    InvalidTaskError,
    PermissionDeniedError,
    QuestionChangedError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskNotFoundError,
    TaskRejectedError,
    UnexpectedReplyError,
)
from awaithumans_core.json_values import read_json
from awaithumans_core.outcome import Outcome, at_deadline, end_without_answer
from awaithumans_core.retry import Backoff, retry_after_seconds
from awaithumans_core.status import NOT_FOUND, TaskStatus
from awaithumans_core.task_id import MAX_TASK_ID_CHARS, TASK_ID_RULE, is_task_id

R = TypeVar("R")

POLL_SECONDS = 25
"""How long one poll is held: the server's default, under the 60 s after which common gateways cut a connection."""

POLL_MARGIN_SECONDS = 10.0
"""What a held poll may take longer than asked before the connection counts as dead."""

CALL_SECONDS = 15.0
"""Limit of every other call."""

RETRY_AFTER_SECONDS = 60.0
"""A longer Retry-After is cut to this: a proxy's maintenance page must not outlast a person's question."""

LAST_LOOK_SECONDS = 30.0
"""How long a plain script tries to close its task at the deadline, and to learn who answered it."""

FIRST_PAGE = 25
MOST_ON_PAGE = 200
"""How many tasks a page of the list holds: at first, and at most (the server's limit)."""

READS_A_PAGE = 6
"""How many tasks can be read one by one at the cost of a page of 200 (measured: 24 ms of the server against 4 ms)."""

HEAVY_PAGE_BYTES = 1_000_000
"""A page that weighs more is halved: lists hold whole payloads, of up to 5 MB each."""

TIMEOUT_GRACE_SECONDS = 15.0
"""What a caller allows the server past a task's deadline.

Its scheduler looks every 5 s, its callback queue every 5 s.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """Send this request; answer with a `Reply` or `Lost`. Its repr shows neither a proof nor content."""

    method: str
    url: str
    """Path below the server's address, or a whole URL."""
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    """The question, and in a task's body the callback URL with its route token."""
    params: Mapping[str, Any] | None = None
    bearer: str | None = field(default=None, repr=False)
    """Proof to send. None: the driver's own API token, which goes to the task server and nowhere else."""
    timeout: float = CALL_SECONDS
    """Seconds until it counts as lost."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds; answer with None. `reason` says what is being waited out."""

    seconds: float
    reason: str
    missing: bool = False
    """Whether the server replies, and does not know the task; otherwise there was no usable reply."""
    logged: bool = True
    """False: the same reason was logged before."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The task's status has changed, or is known for the first time; answer with None."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy that a request was sent through, from the environment of this process."""

    variable: str
    """Which variable names it."""
    address: str
    """Its address, without user name and password."""
    host: str
    """The host that was to be reached through it."""

    def __str__(self) -> str:
        return f"the proxy {self.address} ({self.variable})"

    @property
    def advice(self) -> str:
        """What to do if it refuses or alters requests."""
        return f"Correct {self.variable}, or add {self.host} to NO_PROXY if it can be reached without a proxy"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other side answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: bool = False
    """Whether the body was larger than a client reads, and so is missing."""
    proxy: Proxy | None = None
    """The proxy that may have made this reply, unless it is usable."""


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply came: refused, reset, timed out, cut short."""

    error: str


Step = Call | Pause | Notice
Flow = Generator[Step, Reply | Lost | None, R]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying while there is no usable reply."""

    seconds: float = 60.0
    """From the first try on."""
    backoff: Backoff = field(default_factory=Backoff)
    clock: Callable[[], float] = field(default_factory=lambda: clocks.SYSTEM.now)
    """Seconds that only ever grow."""


def _task_url(task_id: str, below: str = "") -> str:
    """Path of a task on the server.

    Raises:
        InvalidTaskError: no task has such an id; nothing was sent.
    """
    if not is_task_id(task_id):
        raise InvalidTaskError(
            f"{task_id[:MAX_TASK_ID_CHARS]!r} is not a task id: {TASK_ID_RULE}. Use the id that the server returned "
            "when the task was created"
        )
    return f"/api/tasks/{task_id}{below}"


def create(body: Mapping[str, Any], patience: Patience) -> Flow[Outcome]:
    """`POST /api/tasks`. The same key gives the same task, whatever its status, so trying again is safe.

    A key that belongs to a question about something else is refused, as its answer is not the answer to this one.
    """
    outcome, _ = yield from _create(body, patience)
    return outcome


def _create(body: Mapping[str, Any], patience: Patience, *, same_words: bool = True) -> Flow[tuple[Outcome, bool]]:
    """The task, and whether it was created for this caller: by this call, or by an earlier one with the same mark."""
    reply = yield from _insist(Call("POST", "/api/tasks", json=body), patience, lambda reply: _created(reply, body))
    if isinstance(reply, Reply):
        raise refusal(reply, at_create=True)
    outcome, record, ours = reply
    _check_same(body, record, outcome.task_id, same_words=same_words)
    return outcome, ours


def _check_same(body: Mapping[str, Any], record: Mapping[str, Any], task_id: str, *, same_words: bool) -> None:
    """Raise if the task is another question than the one that is asked; see `binding`."""
    differs = differences(parts_asked(body), parts(record), payload_only=not same_words)
    if differs:
        key, asked = body.get("idempotency_key"), record.get("task")
        raise QuestionChangedError(
            f"idempotency_key {key!r} belongs to a question that differs in {', '.join(differs)}: task {task_id}, "
            f"{asked!r}. Give each question a key of its own, or ask what was asked",
            task_id=task_id,
            differs=differs,
        )


def get(task_id: str, patience: Patience, *, key: str | None = None) -> Flow[Outcome]:
    """`GET /api/tasks/{id}`: one look, with who answered and on which channel.

    Args:
        task_id: Which task. The record of another task is no usable reply.
        patience: How long to keep trying.
        key: The idempotency key that the record must have, unless the server hides it. None: any.
    """
    call = Call("GET", _task_url(task_id))
    reply = yield from _insist(call, patience, lambda reply: _record(reply, task_id, key))
    if isinstance(reply, Outcome):
        return reply
    raise refusal(reply, task_id=task_id)


def poll(task_id: str, patience: Patience, *, seconds: int = POLL_SECONDS) -> Flow[Outcome]:
    """One long poll of `seconds` (1 to 30). An end that it reports is read from the record."""
    reported = yield from _poll(task_id, patience, seconds)
    if not reported.terminal:
        return reported
    record = yield from get(task_id, patience)
    if not record.terminal:
        yield Pause(patience.backoff.delay(1), _misled(reported, record))
    return _unless_erased(record, reported)


def _poll(task_id: str, patience: Patience, seconds: int) -> Flow[Outcome]:
    """What one long poll reports about this task, or about another one if the reply was delivered wrongly."""
    call = Call(
        "GET",
        _task_url(task_id, "/poll"),
        params={"timeout": seconds},
        timeout=seconds + POLL_MARGIN_SECONDS,
    )
    reply = yield from _insist(
        call, patience, lambda reply: Outcome.model_validate(_json(reply) | {"task_id": task_id}).from_server()
    )
    if isinstance(reply, Outcome):
        return reply
    raise refusal(reply, task_id=task_id)


def close(task_id: str, patience: Patience, *, key: str | None = None) -> Flow[Outcome]:
    """Cancel the task unless it has ended, and say how it ended: an answer given in the meantime wins.

    `POST /api/tasks/{id}/cancel`, and a look if that is too late. Both again while the record that comes back is open.
    """
    call = Call("POST", _task_url(task_id, "/cancel"))
    until = patience.clock() + patience.seconds
    attempt = 0
    while True:
        attempt += 1
        reply = yield from _insist(call, patience, lambda reply: _record(reply, task_id, key))
        if isinstance(reply, Reply) and reply.status != 409:
            raise refusal(reply, task_id=task_id)
        record = (yield from get(task_id, patience, key=key)) if isinstance(reply, Reply) else reply
        if record.terminal:
            return record
        trouble = f"{call.method} {call.url}: {record.status!r} is not the status of a cancelled task"
        pause = patience.backoff.delay(attempt)
        if patience.clock() + pause > until:
            raise UnexpectedReplyError(trouble, url=call.url, attempts=attempt, task_id=task_id)
        yield Pause(pause, trouble)


def last_look(task_id: str, given: float, patience: Patience, *, key: str | None = None) -> Flow[Outcome]:
    """How the task stands when its asker's time is up. One that nobody has answered is closed, which is a timeout.

    A task that gives people more time than the `given` seconds was asked by somebody else under the same key, who still
    waits: it stays open, and only this asker's time is up. A task that the server does not know is a timeout as well:
    that it was deleted is not confirmed.
    """
    try:
        standing = yield from get(task_id, patience, key=key)
    except TaskNotFoundError:
        return Outcome(task_id=task_id, status=TaskStatus.TIMED_OUT.value, idempotency_key=key)
    if standing.terminal:
        return standing
    if standing.timeout_seconds is not None and standing.timeout_seconds > given:
        return standing.model_copy(update={"status": TaskStatus.TIMED_OUT.value})
    return at_deadline((yield from close(task_id, patience, key=key)))


def follow(
    task_id: str,
    seconds: float,
    patience: Patience,
    *,
    known: str | None = None,
    held: int = POLL_SECONDS,
    given: float = math.inf,
    key: str | None = None,
    readings: Readings | None = None,
) -> Flow[Outcome]:
    """Long-poll, `held` seconds at a time, until the record shows the end, for at most `seconds`; then a last look.

    Unknown statuses are pending. Every status other than the `known` one is noticed once. A task that the server does
    not know is polled until it is confirmed that it was deleted; see `missing.py`.

    Args:
        task_id: Which.
        seconds: For how long.
        patience: For the last look.
        known: The status that needs no notice.
        held: How long a poll may be held.
        given: The seconds this asker has given people.
        key: The idempotency key of the question, as in `get`.
        readings: Shared by the questions of one caller. Default: this task's own.

    Raises:
        TaskNotFoundError: the task was deleted, which is confirmed.
    """
    clock = patience.clock
    until = clock() + seconds
    failures = 0
    reported: Outcome | None = None
    readings = readings or Readings()
    while (left := until - clock()) > 0:
        asked = clock()
        trouble = None
        try:
            outcome = yield from _poll(task_id, Patience(left, patience.backoff, clock), max(1, min(held, int(left))))
            if outcome.terminal:
                reported, left = outcome, max(0.0, until - clock())
                outcome = yield from get(task_id, Patience(left, patience.backoff, clock), key=key)
                if outcome.terminal:
                    return _unless_erased(outcome, reported)
                trouble = _misled(reported, outcome)
        except ServerUnreachableError as away:
            if away.attempts == 0:  # a redirect: trying again will not help
                raise
            # No further try fits in, but people keep their time; the last look has the caller's patience.
            if (left := until - clock()) > 0:
                yield Pause(left, str(away))
            break
        except TaskNotFoundError as unknown:
            yield _missing(task_id, unknown, readings, clock(), until)
            known = None  # its status is news once it is there again
            continue
        readings.present(task_id, clock())
        if outcome.status != known:
            known = outcome.status
            yield Notice(outcome)
        # A poll that is not held would turn this loop into a storm.
        if trouble is None and clock() - asked < 0.5:
            trouble = "the server does not hold polls"
        failures = failures + 1 if trouble else 0
        if trouble:
            yield Pause(patience.backoff.delay(failures), trouble)
    return _unless_erased((yield from last_look(task_id, given, patience, key=key)), reported)


def _misled(reported: Outcome, record: Outcome) -> str:
    """The log line about a poll that reports an end which the record does not have."""
    return (
        f"a poll of task {record.task_id} reported {reported.status!r} while its record is {record.status!r}: that "
        "reply belongs to another request. Does a proxy mix up replies?"
    )


def _unless_erased(record: Outcome, reported: Outcome | None) -> Outcome:
    """The record; with the response a poll reported, if the server erased it between the poll and the read.

    A poll names no task. That it reports the completion which the record shows is known by its moment.
    """
    if (
        reported is None
        or record.response is not None
        or not (record.status == reported.status == TaskStatus.COMPLETED)
        or not _same_moment(record.completed_at, reported.completed_at)
    ):
        return record
    return record.model_copy(update={"response": reported.response})


def _same_moment(one: datetime | None, other: datetime | None) -> bool:
    """Whether these are equal to the second, millisecond or microsecond, by which of them is given less precisely."""
    if one is None or other is None:
        return False
    unit = next(unit for unit in (1_000_000, 1_000, 1) if 0 in (one.microsecond % unit, other.microsecond % unit))
    cut = [moment.replace(microsecond=moment.microsecond // unit * unit) for moment in (one, other)]
    return cut[0] == cut[1]


MISSING_BACKOFF = Backoff(first=2.0, most=60.0)
"""Between the polls of a task that the server does not know."""


def _missing(task_id: str, unknown: TaskNotFoundError, readings: Readings, now: float, until: float) -> Pause:
    """What to wait for after a 404 that does not confirm a deletion.

    Raises:
        TaskNotFoundError: this one confirms it.
    """
    doubted_before = readings.doubted
    verdict = readings.missing(task_id, now)
    if verdict == Verdict.DELETED:
        raise end_without_answer(Outcome(task_id=task_id, status=NOT_FOUND)) or unknown
    missing, rule = readings.missing_tasks[task_id], readings.rule
    delay = MISSING_BACKOFF.delay(missing.count)
    if missing.count >= rule.readings and verdict == Verdict.UNCONFIRMED:
        delay = min(delay, missing.since + rule.seconds - now)
    reason = (
        f"task {task_id} is not on the server ({unknown}). It is read again; if it stays missing for "
        f"{rule.seconds / 60:.0f} minutes, it was deleted"
    )
    if verdict == Verdict.DOUBTED:
        census = readings.census(missing.since)
        reason = f"{census}: it may be running on another database, so no question ends (task {task_id})"
    first = missing.count == 1 or (verdict == Verdict.DOUBTED and not doubted_before)
    return Pause(max(0.0, min(delay, until - now)), reason, missing=True, logged=first)


def ask(body: Mapping[str, Any], seconds: float, patience: Patience, *, held: int = POLL_SECONDS) -> Flow[Outcome]:
    """The whole way of a plain script: create, follow to the end, and read who answered."""
    outcome = yield from create(body, patience)
    if outcome.terminal:
        return outcome
    yield Notice(outcome)
    return (yield from finish(outcome, seconds + TIMEOUT_GRACE_SECONDS, patience, held=held, given=seconds))


def finish(
    opened: Outcome,
    seconds: float,
    patience: Patience,
    *,
    held: int = POLL_SECONDS,
    given: float = math.inf,
    readings: Readings | None = None,
) -> Flow[Outcome]:
    """`follow` an open task to its end, for at most `seconds`. The record it ends with also says who answered."""
    return follow(
        opened.task_id,
        seconds,
        _brief(patience),
        known=opened.status,
        held=held,
        given=given,
        key=opened.idempotency_key,
        readings=readings,
    )


def ended(created: Sequence[datetime], page: int, patience: Patience) -> Flow[tuple[int, datetime | None]]:
    """`GET /api/tasks?terminal=true`: notice the ended tasks among which those created at these moments (UTC) may be.

    The list is newest first and holds whole payloads, so pages are small at first and grow while they stay light. Pages
    are turned while that costs less than reading one by one the tasks that are older than what was listed. A task that
    ends while pages are turned moves others to later ones: some are noticed twice, none is left out.

    Args:
        created: When the tasks were created that are waited for.
        page: How many tasks the first page may hold: `FIRST_PAGE`, then what the last look returned.
        patience: For each page.

    Returns:
        How many tasks a page of the next look may hold, and how far back the list was read: tasks created at that
        moment or before may have ended all the same. None: all of it was read.

    Raises:
        RequestRefusedError: this token lists nothing.
        ServerUnreachableError: no list within the patience; as `UnexpectedReplyError`, this server has none.
    """
    offset = turned = 0
    while True:
        listed = yield from ended_page(offset, page, patience)
        for outcome in listed.ended:
            yield Notice(outcome)
        offset, turned, page = offset + listed.covered, turned + 1, listed.next_size
        if not listed.full:
            return page, None
        older = sum(listed.reached is None or moment <= listed.reached for moment in created)  # several may share one
        if older <= turned * READS_A_PAGE:
            return page, listed.reached or _LATEST


_LATEST = datetime.max.replace(tzinfo=UTC)
"""How far back a page reaches of which no task could be read: any task may have ended."""


@dataclass(frozen=True, slots=True)
class EndedPage:
    """A page of the list of ended tasks."""

    ended: Sequence[Outcome]
    """Newest first, by when they were created; without those that cannot be read."""
    full: bool
    """Whether there may be more after it."""
    next_size: int
    """How many tasks the next page may hold, by what this one weighed."""
    covered: int
    """How many places further the next page begins; 0 if this one was too large and is read again in smaller ones."""

    @property
    def reached(self) -> datetime | None:
        """When the last task on it was created."""
        return next((outcome.created_at for outcome in reversed(self.ended) if outcome.created_at is not None), None)


def ended_page(offset: int, size: int, patience: Patience) -> Flow[EndedPage]:
    """`GET /api/tasks?terminal=true`: `size` tasks from this place on, `FIRST_PAGE` at first, then `next_size`."""
    call = Call("GET", "/api/tasks", params={"terminal": "true", "limit": size, "offset": offset})
    reply = yield from _insist(call, patience, _page)
    if isinstance(reply, Reply):
        raise refusal(reply)
    if reply is None:  # a single task that is too large is left out, as one that cannot be read
        return EndedPage([], full=True, next_size=max(1, size // 2), covered=0 if size > 1 else 1)
    listed, held, weight = reply
    full, covered = held >= size, size
    if weight > HEAVY_PAGE_BYTES:
        size = max(1, size // 2)
    elif full and weight < HEAVY_PAGE_BYTES / 4:
        size = min(MOST_ON_PAGE, size * 2)
    return EndedPage(listed, full, size, covered)


def _page(reply: Reply) -> tuple[list[Outcome], int, int] | None:
    """The records of a page that can be read, how many there are, and its bytes; None: it was too large to read."""
    return None if reply.cut else (*_records(reply), len(reply.body))


def withdraw(body: Mapping[str, Any], patience: Patience) -> Flow[Outcome]:
    """Cancel the question, whether or not its task is known to exist yet; say how it ended.

    An asker that is stopped in the middle of asking cannot know. The key finds the task that there may be.
    """
    outcome = yield from create(body, patience)
    return outcome if outcome.terminal else (yield from close(outcome.task_id, patience, key=outcome.idempotency_key))


def withdraw_key(key: str, patience: Patience, *, asked_by: str | None = None) -> Flow[Outcome]:
    """Cancel the question with this key, whether or not its task is known to exist yet.

    If no task has this key, create an unassigned one, notice it, and cancel it.

    Args:
        key: The idempotency key.
        patience: For each call.
        asked_by: Cancel only a task that was created for this caller (see `open_wait`). Default: whoever created it.
    """
    stub: dict[str, Any] = {"task": "(withdrawn before it was asked)", "payload": {}, "timeout_seconds": 60}
    schemas = {"payload_schema": _marked({"type": "object"}, asked_by), "response_schema": {"type": "object"}}
    body = {**stub, **schemas, "idempotency_key": key}
    reply = yield from _insist(Call("POST", "/api/tasks", json=body), patience, lambda reply: _created(reply, body))
    if isinstance(reply, Reply):
        raise refusal(reply, at_create=True)
    outcome, record, ours = reply
    if record.get("task") == stub["task"]:
        yield Notice(outcome)
    if outcome.terminal or (asked_by is not None and not ours):
        return outcome
    return (yield from close(outcome.task_id, patience, key=key))


def close_own(task_id: str, asked_by: Callable[[str], str | None], patience: Patience) -> Flow[Outcome]:
    """`close`, unless the task was created for another caller under a key that is shared; then return how it stands.

    Args:
        task_id: Which.
        asked_by: The mark this caller's tasks carry under that key; None if the key is never shared.
        patience: For each call.
    """

    def own(key: str | None, mark: str | None) -> bool:
        expected = asked_by(key or "")
        return expected is None or expected == mark

    return _close_if(own, task_id, patience)


def close_of(task_id: str, key: str, marks: Collection[str], patience: Patience) -> Flow[Outcome]:
    """`close` a task with this key that was created for a caller with one of these marks; else return how it stands.

    Whatever else is known about a task, one that was created for somebody else is not closed.
    """
    return _close_if(lambda shown, mark: shown in (None, key) and mark in marks, task_id, patience)


def _close_if(ours: Callable[[str | None, str | None], bool], task_id: str, patience: Patience) -> Flow[Outcome]:
    """`close` a task if `ours` accepts the key and the mark of its record; else return how it stands."""
    call = Call("GET", _task_url(task_id))
    reply = yield from _insist(call, patience, lambda reply: (_record(reply, task_id, None), _mark(_json(reply))))
    if isinstance(reply, Reply):
        raise refusal(reply, task_id=task_id)
    outcome, mark = reply
    if outcome.terminal or not ours(outcome.idempotency_key, mark):
        return outcome
    return (yield from close(task_id, patience, key=outcome.idempotency_key))


ASKED_BY = "x-awaithumans-asked-by"
"""Annotation in a task's payload_schema: a digest that names the caller it was created for.

People are not shown it, and the server returns it with the record. So a later attempt, in another process, knows
whether a task that it finds under its key was created for its own question, or is another caller's.
"""


def _marked(schema: Mapping[str, Any], asked_by: str | None) -> dict[str, Any]:
    return {**schema} if asked_by is None else {**schema, ASKED_BY: asked_by}


def _mark(body: Mapping[str, Any]) -> str | None:
    """The mark of a task body, or of a task record."""
    schema = body.get("payload_schema")
    mark = cast("Mapping[str, Any]", schema).get(ASKED_BY) if isinstance(schema, Mapping) else None
    return mark if isinstance(mark, str) else None


def _is_marked(record: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a record carries the mark of this body, which has one."""
    return (mark := _mark(body)) is not None and _mark(record) == mark


def is_refusal(error: AwaitHumansError) -> bool:
    """Whether there was a usable reply, which refused the request."""
    return not (isinstance(error, ServerUnreachableError) and error.attempts > 0)


@dataclass(frozen=True, slots=True)
class Proofs:
    """What a caller signs for its route."""

    token: str
    """Of the callback URL."""
    of_wait: Callable[[str], str]
    """Task id -> the bearer that registers the wait on it."""
    of_asking: Callable[[], str]
    """The bearer that asks the relay which task the route has open."""


def open_wait(
    body: Mapping[str, Any],
    relay: str,
    proofs: Proofs,
    patience: Patience,
    *,
    same_words: bool = True,
    asked_by: str | None = None,
    gives_up: Callable[[AwaitHumansError], bool] = is_refusal,
    known: str | None = None,
    may_repeat: bool = False,
) -> Flow[Outcome]:
    """Create the task with its callback URL, then `PUT {relay}/waits/{task_id}`.

    The second is there so that the relay can also sweep for the answer.

    In this order, because a registration names the task. An answer that comes between the two is kept by the relay all
    the same. A task that has ended already (its key was used before) needs no wait.

    Args:
        body: `HumanTask.body()`.
        relay: Its address.
        proofs: Those of the caller's route.
        patience: For each call.
        same_words: Whether text, assignee and response class must be those the key was first asked with, and not the
            payload alone.
        asked_by: Names the caller, in the same words at every attempt. A task that it finds under its key and that
            carries this mark was created for it by an earlier attempt.
        gives_up: Whether the caller gives the question up because of this error. Then a task that was created for it is
            cancelled. A task is never cancelled between two attempts, because that uses up its key.
        known: The task that an earlier attempt created for this question. It is read and never created again: if the
            server does not know it, the relay finds out whether it was deleted. A new task is noticed when it is made.
        may_repeat: Whether an earlier attempt that left no trace may have created the task: the relay is asked.
    """
    if known is None and may_repeat:
        try:
            known = yield from _registered(relay, proofs.of_asking(), patience)
        except AwaitHumansError as error:
            if not gives_up(error):  # else the task of an earlier attempt has to be found and cancelled
                raise
    wait: dict[str, Any] = {"timeout_seconds": body["timeout_seconds"]}
    asked = {**body, "callback_url": f"{relay}/callbacks/{proofs.token}"}
    if "payload_schema" in body:
        asked["payload_schema"] = _marked(body["payload_schema"], asked_by)
    if known is None:
        outcome, ours = yield from _create(asked, patience, same_words=same_words)
        yield Notice(outcome)
    elif (found := (yield from _reread(known, asked, patience, same_words=same_words))) is not None:
        outcome, ours = found
    else:
        outcome, ours = Outcome(task_id=known, status=TaskStatus.CREATED.value), False
        wait["missing"] = True
    if outcome.terminal:
        return outcome
    url, proof = f"{relay}/waits/{outcome.task_id}", proofs.of_wait(outcome.task_id)
    call = Call("PUT", url, json=wait, bearer=proof)
    try:
        reply = yield from _insist_relay(call, patience, _json, task_id=outcome.task_id)
        if isinstance(reply, Reply):
            raise refusal(reply, task_id=outcome.task_id, relay=call.url)
    except AwaitHumansError as error:
        if ours and gives_up(error):
            with suppress(AwaitHumansError):
                closed = yield from close(outcome.task_id, _brief(patience), key=body["idempotency_key"])
                if closed.status == TaskStatus.COMPLETED:
                    return closed
        raise
    return outcome


def _registered(relay: str, proof: str, patience: Patience) -> Flow[str | None]:
    """`GET {relay}/waits/asked`: the task of the wait that this route has open. None: it has none, or an older relay.

    Raises:
        AwaitHumansError: the relay refuses the route, or is not there. It would refuse the registration as well.
    """
    call = Call("GET", f"{relay}/waits/asked", bearer=proof)
    reply = yield from _insist_relay(call, patience, lambda reply: _json(reply).get("task_id"))
    if not isinstance(reply, Reply):
        return reply if isinstance(reply, str) else None
    if reply.status == 405 and "PUT" in reply.headers.get("allow", ""):  # an older relay: a task by this name
        return None
    raise refusal(reply, relay=call.url)


def _insist_relay(
    call: Call, patience: Patience, read: Callable[[Reply], R], *, task_id: str | None = None
) -> Flow[R | Reply]:
    """`_insist`, with the name of the relay's setting in the error."""
    try:
        return (yield from _insist(call, patience, read))
    except ServerUnreachableError as away:
        text = f"the relay (AWAITHUMANS_RELAY_URL) does not take the wait: {away}"
        raise type(away)(text, url=call.url, attempts=away.attempts, task_id=task_id) from None


def _reread(
    task_id: str, body: Mapping[str, Any], patience: Patience, *, same_words: bool
) -> Flow[tuple[Outcome, bool] | None]:
    """A task that was created for this question, and whether it carries this caller's mark.

    None: the server does not know it, or has another one by its id.
    """
    call = Call("GET", _task_url(task_id))
    reply = yield from _insist(call, patience, lambda reply: (_record(reply, task_id, None), _json(reply)))
    if isinstance(reply, Reply):
        refused = refusal(reply, task_id=task_id)
        if isinstance(refused, TaskNotFoundError):
            return None
        raise refused
    outcome, record = reply
    if outcome.idempotency_key not in (None, body["idempotency_key"]):
        return None
    _check_same(body, record, task_id, same_words=same_words)
    return outcome, _is_marked(record, body)


SAME_KEY = ". The same call with the same key picks up where this one stopped"
"""How `ServerUnreachableError` and `UnexpectedReplyError` end."""


def _insist(call: Call, patience: Patience, read: Callable[[Reply], R]) -> Flow[R | Reply]:
    """Send until there is a usable reply: what was read of a 2xx, or the `Reply` of a refusal (4xx)."""
    until = patience.clock() + patience.seconds
    attempt = 0
    while True:
        attempt += 1
        reply = cast("Reply | Lost", (yield call))  # what a driver answers every `Call` with
        if isinstance(reply, Reply) and 200 <= reply.status < 300:
            try:
                return read(reply)
            except ValueError as malformed:
                trouble = (
                    f"{reply.status} whose body is not the API's ({str(malformed).splitlines()[0]}){_through(reply)}"
                )
        elif isinstance(reply, Reply) and _final(reply):
            return reply
        else:
            trouble = reply.error if isinstance(reply, Lost) else _trouble(reply)
        pause = patience.backoff.delay(attempt, at_least=min(_retry_after(reply), RETRY_AFTER_SECONDS))
        if patience.clock() + pause > until:
            down = isinstance(reply, Lost) or _away(reply)
            error = ServerUnreachableError if down else UnexpectedReplyError
            server = "AWAITHUMANS_URL the address of an awaithumans server"
            relay = "AWAITHUMANS_RELAY_URL the address of the relay"
            address = "" if down else f". Is {server if call.url.startswith('/') else relay}?"
            if (proxy := answered_by_proxy(reply)) is not None:
                address = f". {proxy.advice}"
            raise error(
                f"{call.method} {call.url}: no usable reply in {patience.seconds:.0f} s and {attempt} attempts; "
                f"last: {trouble}{address}{SAME_KEY}",
                url=call.url,
                attempts=attempt,
                retry_after=min(_retry_after(reply), RETRY_AFTER_SECONDS),
            )
        yield Pause(pause, f"{call.method} {call.url}: {trouble}")


def _brief(patience: Patience) -> Patience:
    return Patience(min(LAST_LOOK_SECONDS, patience.seconds), patience.backoff, patience.clock)


def _final(reply: Reply) -> bool:
    """A refusal that would be repeated. A 404 without JSON comes from a proxy in front of a server that is away."""
    return not _away(reply) and not (reply.status == 404 and _quiet_json(reply) is None)


def _away(reply: Reply) -> bool:
    """Not now: timed out, too early, too many requests, or broken."""
    return reply.status in {408, 425, 429} or reply.status >= 500


_REFUSALS: Mapping[int, type[RequestRefusedError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
}

_PROXY = "a proxy refuses the request: correct HTTP_PROXY, HTTPS_PROXY or NO_PROXY of this process"
_GATEWAY = (
    "this is not a reply of the API: a proxy or gateway before it refuses the request. {setting} must be an address at "
    "which the API itself answers"
)
_ACCESS = frozenset({401, 403})
"""Refusals with which a gateway refuses access, as the API does."""

_ADVICE: Mapping[int, str] = {
    401: "set AWAITHUMANS_ADMIN_API_TOKEN to the server's token",
    403: "use a token of an operator, an admin or the task's assignee",
    404: "is AWAITHUMANS_URL really the address of an awaithumans server?",
    407: _PROXY,
}

_RELAY_ADVICE: Mapping[int | str, str] = {
    401: "AWAITHUMANS_RELAY_SECRET of this process is not the relay's: set both to the same value. If they are the "
    "same, the relay is of an earlier release: update it before the processes that ask",
    403: "a proxy refuses the request: AWAITHUMANS_RELAY_URL of this process must be an address at which the relay "
    "itself answers",
    404: "another service answers: set AWAITHUMANS_RELAY_URL of this process to the address of the relay",
    405: "another service answers: set AWAITHUMANS_RELAY_URL of this process to the address of the relay",
    407: _PROXY,
    ENGINE_UNKNOWN: "start the relay with this engine, or set AWAITHUMANS_RELAY_URL of this process to a relay that "
    "has it",
}
"""What to do about a refusal of the relay, by its code, else by its status."""


def refusal(
    reply: Reply, *, task_id: str | None = None, at_create: bool = False, relay: str | None = None
) -> RequestRefusedError | UnexpectedReplyError:
    """The typed error of a 3xx or 4xx, in the server's own words. Reads all three of its error shapes."""
    server_code, told = _error_words(reply)
    text = f"{reply.status}: {told}"
    setting = "AWAITHUMANS_URL" if relay is None else "AWAITHUMANS_RELAY_URL"
    proxy = answered_by_proxy(reply)
    if 300 <= reply.status < 400:
        what_to_do = (
            f"set the address ({setting}) to where it really is"
            if proxy is None
            else f"through {proxy}. {proxy.advice}"
        )
        return UnexpectedReplyError(
            f"redirected ({reply.status}) to {reply.headers.get('location', 'nowhere')}: {what_to_do}",
            task_id=task_id,
        )
    facts = {
        "task_id": task_id,
        "status_code": reply.status,
        "server_code": server_code,
        "from_api": _api_form(reply),
    }
    if relay is not None:
        advice = _advice(reply, setting, _RELAY_ADVICE.get(server_code or "") or _RELAY_ADVICE.get(reply.status))
        what_to_do = f". {advice}" if advice else ""
        return RequestRefusedError(
            f"the relay refused the wait: {text} ({relay}, from AWAITHUMANS_RELAY_URL){what_to_do}", **facts
        )
    if reply.status == 405 and at_create:
        return UnexpectedReplyError(
            f"{text}; there is no task API at this address: AWAITHUMANS_URL is the server's own, without a path",
            task_id=task_id,
        )
    error = _REFUSALS.get(reply.status)
    if error is None and reply.status == 404 and not at_create:
        if server_code != "TASK_NOT_FOUND":
            return UnexpectedReplyError(f"{text}: there is no task API at this address", task_id=task_id)
        error = TaskNotFoundError
    if error is None:
        error = TaskRejectedError if at_create else RequestRefusedError
    advice = None if error is TaskNotFoundError else _advice(reply, setting, _ADVICE.get(reply.status))
    return error(f"{text} ({advice})" if advice else text, **facts)


def _advice(reply: Reply, setting: str, usual: str | None) -> str | None:
    """What to do about a refusal: the usual, if it is the API that refuses."""
    if (proxy := answered_by_proxy(reply)) is not None:
        return f"the reply came through {proxy} and is not the API's. {proxy.advice}"
    if reply.status in _ACCESS and _quiet_json(reply) is None:
        return _GATEWAY.format(setting=setting)
    return usual


def answered_by_proxy(reply: Reply | Lost) -> Proxy | None:
    """The proxy this reply came through, if the reply is neither the API's nor lost."""
    return reply.proxy if isinstance(reply, Reply) and not _api_form(reply) else None


def _through(reply: Reply) -> str:
    return "" if (proxy := answered_by_proxy(reply)) is None else f", through {proxy}"


def _api_form(reply: Reply) -> bool:
    """Whether the body is one of the API's three error shapes."""
    return not {"detail", "error", "error_code"}.isdisjoint(_quiet_json(reply) or {})


def _error_words(reply: Reply) -> tuple[str | None, str]:
    """Code and text of a refusal.

    It comes as `{"error": CODE, "message"}`, as `{"error_code", ...}`, which is the documented form, as
    `{"detail": text}` or as `{"detail": [{loc, msg}]}`.
    """
    match _quiet_json(reply):
        case {"detail": list(found)}:
            return None, "; ".join(_problem(entry) for entry in found if isinstance(entry, dict))
        case {"detail": str(words)}:
            return None, words
        case dict(held):
            code = held.get("error_code") or held.get("error")
            return (str(code) if code else None), str(held.get("message") or code or "no reason given")
        case _:
            return None, _summary(reply)


def _problem(entry: Mapping[str, JsonValue]) -> str:
    where = entry.get("loc")
    place = ".".join(map(str, where)) if isinstance(where, list) else "request"
    return f"{place}: {entry.get('msg', '')}"


def _record(reply: Reply, task_id: str, key: str | None) -> Outcome:
    """The record, if it is that of this task and of the question with this key."""
    outcome = Outcome.model_validate(_json(reply)).from_server()
    if outcome.task_id != task_id:
        raise ValueError("the record of another task")
    if key is not None and outcome.idempotency_key not in (None, key):
        raise ValueError("the record of another question")
    return outcome


def _records(reply: Reply) -> tuple[list[Outcome], int]:
    """Those that can be read, and how many there are."""
    held = _content(reply)
    if not isinstance(held, list):
        raise ValueError("not a JSON list")  # noqa: TRY004 - malformed data, not a wrong argument
    return [outcome for record in held if (outcome := _lenient(record)) is not None], len(held)


def _lenient(record: JsonValue) -> Outcome | None:
    """One record that cannot be read does not hide the others."""
    try:
        return Outcome.model_validate(record).from_server()
    except ValidationError:
        return None


def _created(reply: Reply, body: Mapping[str, Any]) -> tuple[Outcome, Mapping[str, Any], bool]:
    """The task, its record, and whether it was created for this caller."""
    record, key = _json(reply), body.get("idempotency_key")
    shown = record.get("idempotency_key")
    if not (_is_about(record, body) if shown is None else shown == key):
        raise ValueError("the record of another question")
    ours = reply.headers.get("idempotent-replayed", "").lower() != "true" or _is_marked(record, body)
    outcome = Outcome.model_validate(record | {"idempotency_key": key}).from_server()
    if not is_task_id(outcome.task_id):
        raise ValueError(f"{outcome.task_id[:MAX_TASK_ID_CHARS]!r} is not a task id: {TASK_ID_RULE}")
    return outcome, record, ours


def _is_about(record: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a record without a key shows the text and the payload of this question."""
    known = parts(record)
    return {"task", "payload"} <= known.keys() and {"task", "payload"}.isdisjoint(differences(parts_asked(body), known))


def _content(reply: Reply) -> JsonValue:
    if reply.cut:
        raise ValueError("it is larger than this client reads")
    return read_json(reply.body)


def _json(reply: Reply) -> dict[str, JsonValue]:
    held = _content(reply)
    if not isinstance(held, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - malformed data, not a wrong argument
    return held


def _quiet_json(reply: Reply) -> dict[str, JsonValue] | None:
    try:
        return _json(reply)
    except ValueError:
        return None


MAX_TROUBLE_CHARS = 300
"""Of the words in which a reply says why it is none."""


def _trouble(reply: Reply) -> str:
    """Why this reply is not usable, in its own words if it has the form of the API."""
    if _api_form(reply):
        return f"{reply.status}: {_error_words(reply)[1][:MAX_TROUBLE_CHARS]}"
    return _summary(reply) + _through(reply)


def _summary(reply: Reply) -> str:
    return f"{reply.status} {reply.headers.get('content-type', 'without a content type')}"


def _retry_after(reply: Reply | Lost | None) -> float:
    return retry_after_seconds(reply.headers) if isinstance(reply, Reply) else 0.0
