"""A wait as an operator sees it: in the API, on the page and on the command line, the same for each.

Law: nobody sees what was asked or answered here. That stands on the awaithumans server, which knows who may read it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel

from awaithumans_relay.store import Wait, WaitState


class WaitView(BaseModel):
    """One asker waiting on one task."""

    task_id: str
    wait_id: str
    """Short, stable identity of whom it is for; several may wait on one task."""
    engine: str
    target: dict[str, str]
    """Whom to wake there, in the engine's own words."""
    state: WaitState
    created_at: datetime
    answered_at: datetime | None
    """When the answer came here, or was last redriven."""
    delivered_at: datetime | None
    redriven_at: datetime | None
    attempts: int
    """Deliveries tried since then."""
    found_by: str | None
    """How the answer came: `callback`, `sweep` or `registration`."""
    last_error: str | None
    asker_gone: bool
    """Whether it counts as delivered because its asker had gone and needs nothing; the last error says why."""
    review_url: str
    """Where people see the question."""

    @classmethod
    def of(cls, wait: Wait, review_url: Callable[[str], str]) -> Self:
        """What may be shown of a wait."""
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
            asker_gone=wait.asker_gone,
            review_url=review_url(wait.task_id),
        )


def ago(then: datetime, now: datetime) -> str:
    """How long ago, as people say it: `now`, `45 s`, `12 min`, `3 h`, `2 d`."""
    seconds = int((now - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size * (2 if size == 86400 else 1):
            return f"{seconds // size} {unit}"
    return "now"


def _if_ever(epoch_seconds: float | None) -> datetime | None:
    return None if epoch_seconds is None else _date(epoch_seconds)


def _date(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)
