"""Wait for the end of a task: by long polls until the deadline, or by a wait that is registered at the relay."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic.types import JsonValue

from awaithumans_core.deleted_tasks import Readings, Verdict
from awaithumans_core.errors import AwaitHumansError, ServerUnreachableError, TaskNotFoundError, UnexpectedReplyError
from awaithumans_core.flow.replies import insist, is_refusal, read_object, refusal
from awaithumans_core.flow.steps import (
    POLL_MARGIN_SECONDS,
    POLL_SECONDS,
    TIMEOUT_GRACE_SECONDS,
    Call,
    Flow,
    Notice,
    Patience,
    Pause,
    Reply,
    brief,
)
from awaithumans_core.flow.tasks import close, create, create_or_find, get, marked, reread, task_url
from awaithumans_core.outcome import Outcome, at_deadline, end_without_answer
from awaithumans_core.retry import Backoff
from awaithumans_core.services import RELAY
from awaithumans_core.status import NOT_FOUND, TaskStatus


def ask(body: Mapping[str, Any], seconds: float, patience: Patience, *, held: int = POLL_SECONDS) -> Flow[Outcome]:
    """Ask a question for a plain script: create the task, follow it to its end, and read who answered."""
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
    """`follow` an open task to its end, for at most `seconds`. The final record contains who answered."""
    return follow(
        opened.task_id,
        seconds,
        brief(patience),
        known=opened.status,
        held=held,
        given=given,
        key=opened.idempotency_key,
        readings=readings,
    )


def poll(task_id: str, patience: Patience, *, seconds: int = POLL_SECONDS) -> Flow[Outcome]:
    """Hold one long poll of `seconds` (1 to 30). If it reports an end, the end is read from the record."""
    reported = yield from _poll(task_id, patience, seconds)
    if not reported.terminal:
        return reported
    record = yield from get(task_id, patience)
    if not record.terminal:
        yield Pause(patience.backoff.delay(1), _misled(reported, record))
    return _unless_erased(record, reported)


def _poll(task_id: str, patience: Patience, seconds: int) -> Flow[Outcome]:
    """Return what one long poll reports, about this task or, if the reply was delivered wrongly, about another one."""
    call = Call(
        "GET",
        task_url(task_id, "/poll"),
        params={"timeout": seconds},
        timeout=seconds + POLL_MARGIN_SECONDS,
    )
    reply = yield from insist(
        call, patience, lambda reply: Outcome.model_validate(read_object(reply) | {"task_id": task_id}).from_server()
    )
    if isinstance(reply, Outcome):
        return reply
    raise refusal(reply, call, task_id=task_id)


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
    """Long-poll for at most `seconds` until the record shows the end, then make a final check.

    Unknown statuses are pending. Every status other than the `known` one is noticed once. A task that the server does
    not know is polled until it is confirmed that it was deleted; see `deleted_tasks.py`.

    Args:
        task_id: Id of the task.
        seconds: Maximum duration.
        patience: Limit of the retries of the final check.
        known: The status that is known already, so that it is not noticed.
        held: Duration of one poll in seconds.
        given: Seconds that this caller gives people to answer.
        key: The idempotency key of the question, as in `get`.
        readings: Readings of missing tasks, shared by the questions of one caller. Default: those of this task.

    Raises:
        TaskNotFoundError: it is confirmed that the task was deleted.
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
                yield Pause(left, away.text)
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


def last_look(task_id: str, given: float, patience: Patience, *, key: str | None = None) -> Flow[Outcome]:
    """Return the status of a task at the deadline of its caller. A task without an answer is closed, as a timeout.

    A task that gives people more time than the `given` seconds was asked by another caller under the same key. That
    caller still waits, so the task stays open, and only this caller gets a timeout. A task that the server does not
    know is a timeout as well, because it is not confirmed that it was deleted.
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


def _misled(reported: Outcome, record: Outcome) -> str:
    """Return the log line about a poll that reports an end which the record does not show."""
    return (
        f"a poll of task {record.task_id} reported {reported.status!r} while its record is {record.status!r}: that "
        "reply belongs to another request. Does a proxy mix up replies?"
    )


def _unless_erased(record: Outcome, reported: Outcome | None) -> Outcome:
    """Return the record, with the response from the poll if the server erased it between poll and read.

    A poll names no task. Its completion time shows that it reports the same completion as the record.
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
    """Whether these times are equal, at the precision of the less precise one."""
    if one is None or other is None:
        return False
    unit = next(unit for unit in (1_000_000, 1_000, 1) if 0 in (one.microsecond % unit, other.microsecond % unit))
    cut = [moment.replace(microsecond=moment.microsecond // unit * unit) for moment in (one, other)]
    return cut[0] == cut[1]


MISSING_BACKOFF = Backoff(first=2.0, most=60.0)
"""Pauses between the polls of a task that the server does not know."""


def _missing(task_id: str, unknown: TaskNotFoundError, readings: Readings, now: float, until: float) -> Pause:
    """Return the pause after a 404 that does not confirm a deletion.

    Raises:
        TaskNotFoundError: the 404 confirms the deletion.
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


@dataclass(frozen=True, slots=True)
class Proofs:
    """The signed proofs of a caller for its route."""

    token: str
    """Token of the callback URL."""
    of_wait: Callable[[str], str]
    """Returns the bearer token that registers the wait for a task id."""
    of_asking: Callable[[], str]
    """Returns the bearer token for asking the relay which task the route has open."""


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

    With the registration the relay can also sweep for the answer. It comes second, because it names the task. The relay
    keeps an answer that arrives between the two. A task that has already ended, because its key was used before, needs
    no wait.

    Args:
        body: `HumanTask.body()`.
        relay: Address of the relay.
        proofs: Proofs of the caller's route.
        patience: Limit of the retries of each call.
        same_words: Whether text, assignee and response class must match those first asked under the key, and not only
            the payload.
        asked_by: Identifies the caller, equal at every attempt. A task with its key and this mark was created for it
            by an earlier attempt.
        gives_up: Whether the caller gives up the question because of this error. Then a task that was created for it is
            cancelled. A task is never cancelled between two attempts, because its key could not be used again.
        known: Id of the task that an earlier attempt created for this question. It is read and never created again. If
            the server does not know it, the relay determines whether it was deleted. A new task is noticed.
        may_repeat: Whether an earlier attempt may have created the task without a record of it here. Then the relay is
            asked for the task.
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
        asked["payload_schema"] = marked(body["payload_schema"], asked_by)
    if known is None:
        outcome, ours = yield from create_or_find(asked, patience, same_words=same_words)
        yield Notice(outcome)
    elif (found := (yield from reread(known, asked, patience, same_words=same_words))) is not None:
        outcome, ours = found
    else:
        outcome, ours = Outcome(task_id=known, status=TaskStatus.CREATED.value), False
        wait["missing"] = True
    if outcome.terminal:
        return outcome
    url, proof = f"{relay}/waits/{outcome.task_id}", proofs.of_wait(outcome.task_id)
    call = Call("PUT", url, json=wait, bearer=proof, service=RELAY)
    try:
        reply = yield from insist(call, patience, read_object, task_id=outcome.task_id)
        if isinstance(reply, Reply):
            raise refusal(reply, call, task_id=outcome.task_id)
    except AwaitHumansError as error:
        if ours and gives_up(error):
            with suppress(AwaitHumansError):
                closed = yield from close(outcome.task_id, brief(patience), key=body["idempotency_key"])
                if closed.status == TaskStatus.COMPLETED:
                    return closed
        raise
    return outcome


def _registered(relay: str, proof: str, patience: Patience) -> Flow[str | None]:
    """`GET {relay}/waits/asked`: return the task of this route's open wait. None: it has none, or the relay is older.

    Raises:
        AwaitHumansError: the relay refuses the route or is unreachable. The registration would fail as well.
    """
    call = Call("GET", f"{relay}/waits/asked", bearer=proof, service=RELAY)
    reply = yield from insist(call, patience, lambda reply: read_object(reply).get("task_id"))
    if not isinstance(reply, Reply):
        return reply if isinstance(reply, str) else None
    if reply.status == 405 and "PUT" in reply.headers.get("allow", ""):  # an older relay: a task by this name
        return None
    raise refusal(reply, call)


def relay_report(relay: str, proof: str, patience: Patience) -> Flow[dict[str, JsonValue]]:
    """`GET {relay}/waits/report`: return what the relay reports about itself.

    Raises:
        AwaitHumansError: the relay refuses the proof, is unreachable, or is of an earlier release.
    """
    call = Call("GET", f"{relay}/waits/report", bearer=proof, service=RELAY)
    reply = yield from insist(call, patience, read_object)
    if not isinstance(reply, Reply):
        return reply
    if reply.status == 405 and "PUT" in reply.headers.get("allow", ""):
        raise UnexpectedReplyError(
            f"the relay at {RELAY.at(relay)} is of an earlier release, which does not report what it has: update it",
            url=reply.url or call.url,
        )
    raise refusal(reply, call)
