"""What operators, metrics and commands read about waits. Nothing here changes a row."""

import json
from collections.abc import Collection

from sqlalchemy import func, select

from awaithumans_relay.store.database import Database
from awaithumans_relay.store.table.rows import Wait, wait_of
from awaithumans_relay.store.table.schema import waits
from awaithumans_relay.store.wait_state import WaitState


class Queries:
    """Reads waits.

    Args:
        database: The database of the waits table.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, task_id: str) -> list[Wait]:
        """Return all waits on a task."""
        found = select(waits).where(waits.c.task_id == task_id)
        return await self._database.read(lambda db: [wait_of(row) for row in db.execute(found).mappings()])

    async def listed(
        self, *, states: Collection[str] = (), engine: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[Wait]:
        """Return one page of waits, newest first."""
        which = [
            *([waits.c.state.in_(list(states))] if states else []),
            *([waits.c.engine == engine] if engine is not None else []),
        ]
        page = (
            select(waits)
            .where(*which)
            .order_by(waits.c.created_at.desc(), waits.c.task_id, waits.c.route_digest)
            .limit(limit)
            .offset(offset)
        )
        return await self._database.read(lambda db: [wait_of(row) for row in db.execute(page).mappings()])

    async def of_thread(self, engine: str, thread_id: str) -> Wait | None:
        """Return the newest wait whose target is this thread of this engine."""
        part = json.dumps(thread_id)
        newest = (
            select(waits)
            .where(waits.c.engine == engine, waits.c.target_id.contains(f'"thread_id":{part}', autoescape=True))
            .order_by(waits.c.created_at.desc())
            .limit(1)
        )
        found = await self._database.read(lambda db: [wait_of(row) for row in db.execute(newest).mappings()])
        return found[0] if found else None

    async def counts(self, *, engine: str | None = None) -> dict[str, int]:
        """Count the waits in each state, for all engines or for one."""
        which = [waits.c.engine == engine] if engine is not None else []
        counted = select(waits.c.state, func.count()).where(*which).group_by(waits.c.state)
        return await self._database.read(lambda db: {row[0]: row[1] for row in db.execute(counted)})

    async def unfinished(self) -> dict[tuple[str, str], int]:
        """Count the undelivered waits by state and engine. Delivered ones make up most of the table."""
        which = waits.c.state.in_([WaitState.OPEN, WaitState.ANSWERED, WaitState.PARKED])
        counted = (
            select(waits.c.state, waits.c.engine, func.count()).where(which).group_by(waits.c.state, waits.c.engine)
        )
        return await self._database.read(lambda db: {(row[0], row[1]): row[2] for row in db.execute(counted)})

    async def oldest_undelivered(self) -> float | None:
        """Return when the longest undelivered answer came. None: there is none."""
        oldest = select(func.min(waits.c.answered_at)).where(waits.c.state == WaitState.ANSWERED)
        return await self._database.read(lambda db: db.execute(oldest).scalar())

    async def engines(self) -> Collection[str]:
        """Return the names of the engines of all open and answered waits."""
        unfinished = waits.c.state.in_([WaitState.OPEN, WaitState.ANSWERED])
        named = select(waits.c.engine).where(unfinished).distinct()
        return await self._database.read(lambda db: set(db.execute(named).scalars()))
