"""Statements that record answers, deliveries and started runs, for all that arrive at the same moment.

A statement costs more than the change it makes to one row, and each one releases the GIL for a moment. Under load many
callbacks share a transaction, and then its statements as well.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from awaithumans_core.route import Route
from awaithumans_core.runs import StartedRuns
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store.table.batch_statements import Select, Update
from awaithumans_relay.store.table.rows import MISSING, RELEASED, answered, open_row
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState

logger = safe_logger("awaithumans.relay")

LATE = (
    "the answer came after the caller was given TaskNotFoundError: the task was not on the awaithumans server for a "
    "while. See whether the server ran on another database; a redrive delivers the answer"
)
"""Why an answer is parked that comes after its question was treated as deleted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a task that has ended."""

    task_id: str
    idempotency_key: str
    outcome: Mapping[str, Any]
    found_by: str
    at: float
    """When the answer was received, in epoch seconds."""
    route: Route | None
    """The route in the callback's URL, which receives the answer even if its wait is not registered yet.

    None: only registered waits receive the answer.
    """


@dataclass(frozen=True, slots=True)
class Delivery:
    """The record that a caller has received its answer."""

    task_id: str
    route_digest: str
    owner: str
    """The holder of the lease under which it was delivered."""
    at: float
    note: str | None


@dataclass(frozen=True, slots=True)
class RunStart:
    """The record that a run of the caller is about to start."""

    task_id: str
    route_digest: str
    owner: str
    """The holder of the lease under which it starts."""
    runs: StartedRuns
    """The runs started so far, including this one."""


def write_answers(db: Connection, answers: Sequence[Answer]) -> list[list[str]]:
    """Write the answers, and return for each one the engines of the waits it answered.

    A wait that is already answered keeps its answer. The deletion of a task is not an answer. An answer that comes
    later replaces it, and is parked if the caller has already received the deletion.
    """
    engines: list[list[str]] = [[] for _ in answers]
    first: dict[tuple[str, str], int] = {}
    for number, answer in enumerate(answers):
        first.setdefault((answer.task_id, answer.idempotency_key), number)
    known: set[tuple[str, str]] = set()
    rows: list[tuple[tuple[str, str], dict[str, Any]]] = []
    late: list[tuple[tuple[str, str], dict[str, Any]]] = []
    for task_id, digest, key, engine, unanswered, found_by, state in _KNOWN.run(db, [(a.task_id,) for a in answers]):
        known.add((task_id, digest))
        its = first.get((task_id, key))
        if its is None or not (unanswered or (found_by == MISSING and answers[its].found_by != MISSING)):
            continue
        if not unanswered:
            logger.warning("task %s counted as deleted, and an answer to it came (wait %s)", task_id, state)
        if not unanswered and state == WaitState.DELIVERED:
            parked = {"state": WaitState.PARKED, "last_error": LATE}
            late.append(((task_id, digest), _values(answers[its]) | parked))
        else:
            rows.append(((task_id, digest), _values(answers[its])))
        engines[its].append(engine)
    _ANSWER.run(db, rows)
    _ANSWER_LATE.run(db, late)
    for number, engine in _write_early(db, answers, known):
        engines[number].append(engine)
    return engines


def _write_early(
    db: Connection, answers: Sequence[Answer], known: Collection[tuple[str, str]]
) -> list[tuple[int, str]]:
    """Add answered waits for callbacks that came before their registration; the callback's URL contains the route.

    Returns the index of the answer and the engine of each wait that was added. `known` are the waits that exist.
    """
    early: dict[tuple[str, str], int] = {}
    rows: list[dict[str, Any]] = []
    for number, answer in enumerate(answers):
        if answer.route is None or (this := (answer.task_id, answer.route.digest)) in known or this in early:
            continue
        early[this] = number
        row = open_row(answer.task_id, answer.route, now=answer.at, deadline_at=answer.at)
        rows.append(row | _values(answer))
    if not rows:
        return []
    added = db.execute(_ADD[db.dialect.name], rows)
    return [(early[each.task_id, each.route_digest], each.engine) for each in added]


def write_deliveries(db: Connection, deliveries: Sequence[Delivery]) -> list[bool]:
    """Record the deliveries.

    Returns for each whether its owner still held the lease; without it nothing is recorded.
    """
    mine = _still_leased(db, deliveries)
    rows = [
        ((this.task_id, this.route_digest), {"delivered_at": this.at, "last_error": this.note})
        for this, still in zip(deliveries, mine, strict=True)
        if still
    ]
    _DELIVERED.run(db, rows)
    return mine


def write_run_starts(db: Connection, starts: Sequence[RunStart]) -> list[bool]:
    """Record the starts. Returns for each whether its owner still held the lease; without it nothing is recorded."""
    mine = _still_leased(db, starts)
    rows = [
        (
            (this.task_id, this.route_digest),
            {"run_position": this.runs.state_fingerprint, "run_starts": this.runs.starts},
        )
        for this, still in zip(starts, mine, strict=True)
        if still
    ]
    _RUN_STARTED.run(db, rows)
    return mine


def _still_leased(db: Connection, writes: Sequence[Delivery | RunStart]) -> list[bool]:
    """Return for each write whether its owner still holds the lease."""
    ids = [(this.task_id, this.route_digest) for this in writes]
    owners = {(task_id, digest): owner for task_id, digest, owner in _HELD.run(db, ids)}
    return [owners.get(each) == this.owner for each, this in zip(ids, writes, strict=True)]


def _values(answer: Answer) -> dict[str, Any]:
    return answered(answer.outcome, answer.found_by, answer.at)


# These statements are built once, because building a statement and the cache key of its compiled form takes longer than
# executing it.


def _add(insert: Any) -> Any:
    """Build the statement that adds an answered wait, unless another relay has added and answered it."""
    row = insert(waits)
    changed = {name: row.excluded[name] for name in answered({}, "", 0.0)}
    taken = row.on_conflict_do_update(
        index_elements=[waits.c.task_id, waits.c.route_digest], set_=changed, where=waits.c.outcome.is_(None)
    )
    return taken.returning(waits.c.task_id, waits.c.route_digest, waits.c.engine)


_ADD = {"sqlite": _add(sqlite.insert), "postgresql": _add(postgresql.insert)}
_KNOWN = Select(
    (waits.c.task_id,),
    (
        waits.c.task_id,
        waits.c.route_digest,
        waits.c.idempotency_key,
        waits.c.engine,
        waits.c.outcome.is_(None),
        waits.c.found_by,
        waits.c.state,
    ),
)
_ANSWER = Update(answered({}, "", 0.0))
_ANSWER_LATE = Update((*answered({}, "", 0.0), "last_error"))
_HELD = Select((waits.c.task_id, waits.c.route_digest), (waits.c.task_id, waits.c.route_digest, waits.c.lease_owner))
_DELIVERED = Update(("delivered_at", "last_error"), {"state": WaitState.DELIVERED, **RELEASED})
_RUN_STARTED = Update(("run_position", "run_starts"))
