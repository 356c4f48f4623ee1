"""Engines of the tests: implementations of the `Engine` protocol without a workflow engine behind them."""

import asyncio
from collections.abc import Callable

from awaithumans_core import Outcome, Route


class CollectingEngine:
    """An engine that keeps its deliveries in order; `on_deliver` may raise a target's error."""

    def __init__(self, name: str = "shelf", on_deliver: Callable[[Route], None] | None = None) -> None:
        self.name = name
        self.held: list[tuple[Route, Outcome]] = []
        self.calls = 0
        self._on_deliver = on_deliver
        self._changed = asyncio.Condition()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        self.calls += 1
        if self._on_deliver is not None:
            self._on_deliver(route)
        async with self._changed:
            self.held.append((route, outcome))
            self._changed.notify_all()

    async def until(self, count: int, seconds: float = 60.0) -> list[Outcome]:
        """Return the outcomes, once there are `count` of them."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.held) >= count)
        return [outcome for _, outcome in self.held]
