"""What `/readyz` and `/metrics` report about a relay."""

import asyncio
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.store.readiness import PROBE_SECONDS


class Status:
    """Reports the state of the waits, the engines and the server.

    Args:
        store: The waits.
        observer: Has recorded the events of the relay.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    async def readiness(self) -> dict[str, Any]:
        """Return the state of the waits, the engines and the server. Raises when a callback could not be stored now."""
        await self._store.readiness.check()
        async with asyncio.timeout(PROBE_SECONDS):
            unfinished = await self._store.queries.unfinished()
        waits: dict[str, int] = {}
        for (state, _), count in unfinished.items():
            waits[state] = waits.get(state, 0) + count
        waiting = {engine for (state, engine) in unfinished if state != WaitState.PARKED}
        return {"waits": waits} | self._observer.health.report(waiting)

    async def metrics(self, *, running: bool) -> bytes:
        """Return the metrics for Prometheus, whether or not the relay is running and the store responds."""
        if not running:
            return self._observer.metrics.text(None, 0)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                unfinished, oldest = (
                    await self._store.queries.unfinished(),
                    await self._store.queries.oldest_undelivered(),
                )
        except (SQLAlchemyError, OSError):
            return self._observer.metrics.text(None, 0)
        age = 0.0 if oldest is None else max(0.0, self._store.clock() - oldest)
        return self._observer.metrics.text(unfinished, age)
