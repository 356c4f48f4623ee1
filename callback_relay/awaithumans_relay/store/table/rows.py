"""One row of the waits table: how it is created, answered and read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.dialects import postgresql, sqlite

from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import NO_RUNS, StartedRuns
from awaithumans_core.schedule import next_check
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState

_JSON = json.JSONEncoder(allow_nan=False)


MISSING = "missing"
"""`found_by` of an outcome that no server record states: the task was deleted on the server, which is confirmed."""
READABLE: Mapping[str, Any] = {"missing_since": None, "missing_count": None}
"""The column values of a wait whose task was read."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One row of the waits table. Times are epoch seconds."""

    task_id: str
    route: Route
    """Where the answer must go."""
    state: WaitState
    created_at: float
    deadline_at: float
    next_check_at: float
    """When the sweep checks the task next, while the wait is open."""
    outcome: Outcome | None
    found_by: str | None
    """How the answer came: `callback`, `sweep`, `registration` or `missing`.

    `registration`: it was stored before the caller registered. `missing`: there is no answer, the task was deleted.
    """
    answered_at: float | None
    attempts: int
    """Delivery attempts since the wait was answered, or since it was last redriven."""
    not_ready_since: float | None
    """Since when the target has reported that it is not ready. None: its last response was different."""
    delivered_at: float | None
    """When it was first delivered. It is kept when a registration requests the answer again."""
    redriven_at: float | None
    """When an operator last redrove the wait."""
    last_error: str | None
    runs: StartedRuns = NO_RUNS
    """The runs started to deliver the answer, by engines that run the caller themselves."""
    next_attempt_at: float | None = None
    """When its next delivery is due, while the wait is answered."""
    missing_since: float | None = None
    """Since when the server reports that it does not know the task. None: the last read found the task."""

    @property
    def caller_gone(self) -> bool:
        """Whether the wait was closed without a delivery because its caller is gone.

        Only then does a delivered wait have a note.
        """
        return self.state == WaitState.DELIVERED and self.last_error is not None

    @property
    def redriven(self) -> bool:
        """Whether an operator requested this delivery. A redrive sets `answered_at` to its own time."""
        return self.redriven_at is not None and self.redriven_at == self.answered_at


def kept(error: str | None) -> str | None:
    """Return an error text in a form that every database accepts.

    A text may contain a NUL, or half a character from a file name. If the database refused the text, the wait could not
    be parked and would be delivered over and over.
    """
    return None if error is None else error.encode("utf-8", "replace").decode().replace("\0", "?")


RELEASED: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}
"""The column values of a wait that no relay has leased."""


def answered(outcome: Mapping[str, Any], found_by: str, now: float) -> dict[str, Any]:
    """Return the column values that an answer changes. Its delivery is due immediately."""
    return {
        "state": WaitState.ANSWERED,
        "outcome": outcome,
        "found_by": found_by,
        "answered_at": now,
        "next_attempt_at": now,
        "attempts": 0,
        "not_ready_since": None,
        **RELEASED,
    }


def asked_at(route: Route) -> dict[str, Any]:
    """Return where the question was last asked. Empty if the route does not name it, which keeps the stored value."""
    return {} if route.asked_at is None else {"asked_at": dict(route.asked_at)}


def open_row(task_id: str, route: Route, *, now: float, deadline_at: float) -> dict[str, Any]:
    """Return the row of a wait without an answer."""
    return {
        "task_id": task_id,
        "route_digest": route.digest,
        "engine": route.engine,
        "target": dict(route.target),
        "target_id": route.target_id,
        "idempotency_key": route.idempotency_key,
        "state": WaitState.OPEN,
        "created_at": now,
        "deadline_at": deadline_at,
        "next_check_at": next_check(now=now, created_at=now, deadline_at=deadline_at),
        "attempts": 0,
        "traceparent": route.traceparent,
        "encoded": route.encoded,
        "asked_at": None,
        **asked_at(route),
        "caller": None if route.caller is None else dict(route.caller),
    }


_ADD = {
    "sqlite": sqlite.insert(waits).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(waits).on_conflict_do_nothing(),
}


def add_row(db: Connection, row: Mapping[str, Any]) -> None:
    """Add the row of a wait, unless it is there."""
    db.execute(_ADD[db.dialect.name], [dict(row)])


def wait_of(row: RowMapping) -> Wait:
    """Convert a database row to a wait."""
    return Wait(
        task_id=row["task_id"],
        route=Route(
            row["engine"],
            row["target"],
            row["idempotency_key"],
            row["traceparent"],
            row["encoded"],
            asked_at=row["asked_at"],
            caller=row["caller"],
        ),
        state=WaitState(row["state"]),
        created_at=row["created_at"],
        deadline_at=row["deadline_at"],
        next_check_at=row["next_check_at"],
        outcome=None if row["outcome"] is None else Outcome.model_validate(row["outcome"]),
        found_by=row["found_by"],
        answered_at=row["answered_at"],
        next_attempt_at=row["next_attempt_at"],
        attempts=row["attempts"],
        not_ready_since=row["not_ready_since"],
        delivered_at=row["delivered_at"],
        redriven_at=row["redriven_at"],
        last_error=row["last_error"],
        runs=StartedRuns(row["run_position"], row["run_starts"]),
        missing_since=row["missing_since"],
    )


def storable(outcome: Outcome) -> Outcome:
    """Return the outcome, without its response if a database cannot store that.

    SQLite accepts numbers that are not valid JSON, but PostgreSQL does not.
    """
    try:
        _JSON.encode(outcome.response)
    except ValueError:
        return outcome.without_response("it holds a number that JSON does not have; read it from the server")
    return outcome
