"""Creates tasks for the questions that callers stored and could not ask, at the start of a relay and on a schedule."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from awaithumans_core.engine import Adopts, Engine
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.runtime.background import beside

logger = safe_logger("awaithumans.relay")

ROUND_SECONDS = 30.0
"""Seconds between two rounds."""
FIRST_SECONDS = 1.0
"""Seconds before the first round. Its tasks are registered with this relay, which must accept requests first."""


class Adoption:
    """Makes engines that support it ask the questions that their callers could not ask.

    Args:
        engines: The relay's engines. Those that do not support it are ignored.
        seconds: Seconds between two rounds.
    """

    def __init__(self, engines: Iterable[Engine], *, seconds: float = ROUND_SECONDS) -> None:
        self._engines = {engine.name: engine for engine in engines if isinstance(engine, Adopts)}
        self._seconds = seconds

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Adopt questions while the block runs."""
        async with beside(**{f"adopt:{name}": self._run(name, engine) for name, engine in self._engines.items()}):
            yield

    async def _run(self, name: str, engine: Adopts) -> None:
        await asyncio.sleep(min(FIRST_SECONDS, self._seconds))
        reported: str | None = None
        while True:
            try:
                created = await engine.adopt()
                reported = None
            except Exception as error:  # any error of a checkpointer: the next round tries again
                reason = f"{type(error).__name__}: {error}"
                if reason != reported:
                    logger.warning("interrupts without a task cannot be read: engine %s (%s)", name, reason)
                reported = reason
            else:
                if created:
                    logger.info("tasks created for interrupts that had none: engine %s, %d tasks", name, created)
            await asyncio.sleep(self._seconds)
