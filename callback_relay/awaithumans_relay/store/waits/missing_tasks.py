"""What the sweep records about tasks that the server does not know (`table.missing_tasks`)."""

from collections.abc import Callable, Mapping

from awaithumans_core.deleted_tasks import RULE, Census, Missing, Rule
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.table import missing_tasks as statements


class MissingTasks:
    """Counts the readings of missing tasks, and ends the waits on deleted ones.

    Args:
        database: The database of the waits table.
        clock: Epoch seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self.clock = clock

    async def record(self, task_id: str, rule: Rule = RULE) -> Missing | None:
        """Record that the server does not know this task. None: no wait on it is open."""
        return await self._database.write(
            lambda db: statements.record_missing(db, task_id, self.clock(), rule), order=task_id
        )

    async def record_seen(self, seen: Mapping[str, float]) -> None:
        """Record that these tasks were read, each at its time."""
        await self._database.write(lambda db: statements.record_seen(db, seen), order=min(seen, default=""))

    async def review(self, task_id: str, rule: Rule = RULE) -> statements.Review:
        """End the waits on a task that was just read as missing, if that confirms its deletion."""
        return await self._database.write(lambda db: statements.review(db, task_id, self.clock(), rule), order=task_id)

    async def any(self) -> bool:
        """Whether the task of an open wait is missing."""
        return await self._database.read(statements.any_missing)

    async def doubt(self, rule: Rule = RULE) -> Census | None:
        """Return the census of missing tasks that keeps deletions from ending waits. None: nothing is in doubt."""
        return await self._database.read(lambda db: statements.doubt(db, self.clock(), rule))

    async def listed(self, limit: int) -> tuple[int, list[str]]:
        """Return how many tasks of open waits are missing, and up to `limit` of them."""
        return await self._database.read(lambda db: statements.missing_tasks(db, limit))
