"""A wait as an operator sees it, in the same form in the API, on the page and on the command line.

Law: the question and the answer are not shown here. They are on the awaithumans server, which knows who may read them.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel

from awaithumans_relay.store import Wait, WaitState


class WaitView(BaseModel):
    """One caller waiting for one task."""

    task_id: str
    wait_id: str
    """Short, stable identity of the caller's route. Several callers may wait on one task."""
    engine: str
    target: dict[str, str]
    """The target to wake in the engine, in the engine's own terms."""
    state: WaitState
    created_at: datetime
    answered_at: datetime | None
    """When the relay received the answer, or when it was last redriven."""
    delivered_at: datetime | None
    redriven_at: datetime | None
    attempts: int
    """Delivery attempts since the answer came, or since it was last redriven."""
    found_by: str | None
    """How the answer came: `callback`, `sweep` or `registration`."""
    last_error: str | None
    caller_gone: bool
    """Whether it counts as delivered because its caller is gone and needs nothing. The last error has the reason."""
    review_url: str
    """The page where people see the question."""

    @classmethod
    def of(cls, wait: Wait, review_url: Callable[[str], str]) -> Self:
        """Return the parts of a wait that may be shown."""
        return cls(
            task_id=wait.task_id,
            wait_id=wait.route.digest,
            engine=wait.route.engine,
            target=dict(wait.route.target),
            state=wait.state,
            created_at=_date(wait.created_at),
            answered_at=_if_ever(wait.answered_at),
            delivered_at=_if_ever(wait.delivered_at),
            redriven_at=_if_ever(wait.redriven_at),
            attempts=wait.attempts,
            found_by=wait.found_by,
            last_error=wait.last_error,
            caller_gone=wait.caller_gone,
            review_url=review_url(wait.task_id),
        )


def ago(then: datetime, now: datetime) -> str:
    """Return the elapsed time in a short form: `now`, `45 s`, `12 min`, `3 h`, `2 d`."""
    seconds = int((now - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size * (2 if size == 86400 else 1):
            return f"{seconds // size} {unit}"
    return "now"


def _if_ever(epoch_seconds: float | None) -> datetime | None:
    return None if epoch_seconds is None else _date(epoch_seconds)


def _date(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)
