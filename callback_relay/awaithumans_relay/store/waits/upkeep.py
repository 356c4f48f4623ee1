"""What operators and the retention change: parked waits are redriven, old ones are deleted."""

from collections.abc import Callable

from sqlalchemy import Connection, and_, delete, select, tuple_, union_all, update

from awaithumans_relay.store.database import Database
from awaithumans_relay.store.table.conditions import this_wait
from awaithumans_relay.store.table.rows import RELEASED, Wait
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState


class Upkeep:
    """Redrives and deletes waits.

    Args:
        database: The database of the waits table.
        clock: Epoch seconds.
        steady: Monotonic clock, in seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._database = database
        self.clock = clock
        self.steady = steady

    async def redrive(self, *, task_id: str | None = None, engine: str | None = None) -> int:
        """Deliver parked waits once more, and reopen those without an answer. Returns how many waits were redriven."""
        now = self.clock()
        parked = and_(
            waits.c.state == WaitState.PARKED,
            *([waits.c.task_id == task_id] if task_id is not None else []),
            *([waits.c.engine == engine] if engine is not None else []),
        )
        again = {
            "attempts": 0,
            "not_ready_since": None,
            "redriven_at": now,
            "run_position": None,
            "run_starts": 0,
            **RELEASED,
        }
        unanswered, has_answer = and_(parked, waits.c.outcome.is_(None)), and_(parked, waits.c.outcome.is_not(None))

        def write(db: Connection) -> int:
            reopened = update(waits).where(unanswered).values(state=WaitState.OPEN, next_check_at=now, **again)
            sent_again = (
                update(waits)
                .where(has_answer)
                .values(state=WaitState.ANSWERED, answered_at=now, next_attempt_at=now, **again)
            )
            return db.execute(reopened).rowcount + db.execute(sent_again).rowcount

        return await self._database.write(write, order=task_id or "")

    async def delete_ended(self, before: float, *, limit: int = 1000) -> int:
        """Delete waits that were delivered before this time, or parked without an answer and with a deadline before it.

        Deletes at most `limit` waits and returns how many. A wait with an undelivered answer is never deleted.
        """
        delivered = and_(waits.c.state == WaitState.DELIVERED, waits.c.delivered_at < before)
        lapsed = and_(waits.c.state == WaitState.PARKED, waits.c.outcome.is_(None), waits.c.deadline_at < before)
        old = union_all(
            *(select(waits.c.task_id, waits.c.route_digest).where(which) for which in (delivered, lapsed))
        ).limit(limit)
        deleted = delete(waits).where(tuple_(waits.c.task_id, waits.c.route_digest).in_(old))
        return await self._database.write(lambda db: db.execute(deleted).rowcount)

    async def delete(self, wait: Wait) -> None:
        """Delete one wait, whatever its state."""
        this = delete(waits).where(this_wait(wait.task_id, wait.route))
        await self._database.write(lambda db: db.execute(this).rowcount, order=wait.task_id)
