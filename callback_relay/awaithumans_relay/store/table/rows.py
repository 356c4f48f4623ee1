"""One row of the waits table: as it is made, as it is answered, and as it is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping

from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.runs import NO_RUNS, StartedRuns
from awaithumans_relay.store.schedule import next_check

_JSON = json.JSONEncoder(allow_nan=False)


class WaitState(StrEnum):
    """The life of a wait."""

    OPEN = "open"
    ANSWERED = "answered"
    DELIVERED = "delivered"
    PARKED = "parked"


MISSING = "missing"
"""`found_by` of an end that no record states: the task was deleted on the server, which is confirmed."""
READABLE: Mapping[str, Any] = {"missing_since": None, "missing_count": None}
"""The task was read."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One row, read. Times are epoch seconds."""

    task_id: str
    route: Route
    """Where the answer must go."""
    state: WaitState
    created_at: float
    deadline_at: float
    next_check_at: float
    """When the sweep looks at the task next, as long as the wait is open."""
    outcome: Outcome | None
    found_by: str | None
    """How the answer came: `callback`, `sweep`, `registration` (it was here before the asker registered), or `missing`
    (there is none: the task was deleted).
    """
    answered_at: float | None
    attempts: int
    """Deliveries tried since it was answered, or since it was last redriven."""
    not_ready_since: float | None
    """Since when the target has answered that it is not ready; None when it last said something else."""
    delivered_at: float | None
    """When it was first delivered; kept when a registration asks for the answer again."""
    redriven_at: float | None
    """When an operator last had it delivered once more."""
    last_error: str | None
    runs: StartedRuns = NO_RUNS
    """The runs that engines which run the caller themselves have started to deliver the answer."""
    next_attempt_at: float | None = None
    """When its next delivery is due, as long as it is answered."""
    missing_since: float | None = None
    """Since when the server answers that it does not know the task; None when it was read last."""

    @property
    def asker_gone(self) -> bool:
        """Whether it is closed without a delivery, for want of an asker: then alone a delivered wait has a note."""
        return self.state == WaitState.DELIVERED and self.last_error is not None

    @property
    def redriven(self) -> bool:
        """Whether its delivery is an operator's wish: a redrive gives an answer the time of its own."""
        return self.redriven_at is not None and self.redriven_at == self.answered_at


def kept(error: str | None) -> str | None:
    """What an error says, as every database takes it: there may be half a character in it, of a file name, or a NUL.

    A text that was refused would keep the wait from being parked, and have it delivered over and over.
    """
    return None if error is None else error.encode("utf-8", "replace").decode().replace("\0", "?")


RELEASED: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}
"""Nobody delivers it."""


def answered(outcome: Mapping[str, Any], found_by: str, now: float) -> dict[str, Any]:
    """What an answer changes; it is due at once."""
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
    """Where the question was asked last; nothing if the route does not name it, which keeps what is known."""
    return {} if route.asked_at is None else {"asked_at": dict(route.asked_at)}


def open_row(task_id: str, route: Route, *, now: float, deadline_at: float) -> dict[str, Any]:
    """A wait that nobody has answered."""
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


def wait_of(row: RowMapping) -> Wait:
    """A row, read."""
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
    """The outcome without a response that no database keeps. SQLite takes what is not JSON, PostgreSQL does not."""
    try:
        _JSON.encode(outcome.response)
    except ValueError:
        return outcome.without_response("it holds a number that JSON does not have; read it from the server")
    return outcome
