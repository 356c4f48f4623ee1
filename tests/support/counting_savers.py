"""LangGraph savers in memory that count and record their reads."""

import asyncio
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

T = TypeVar("T")


class CountingSaver(InMemorySaver):
    """LangGraph's saver in memory, with a counter of reads and an attribute of its own."""

    own = "the saver's"

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Count the read; the async method calls this one."""
        self.reads += 1
        return super().get_tuple(config)


class YieldingSaver(CountingSaver):
    """A counting saver that yields to other threads during a read, as a database does, and records reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[tuple[str, str]] = []

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read and record it when it is done."""
        for _ in range(3):
            await asyncio.sleep(0)
        return self._noted("read", config, await super().aget_tuple(config))

    async def aput(self, config: RunnableConfig, *written: Any) -> RunnableConfig:
        """Write and record it when it is done."""
        return self._noted("written", config, await super().aput(config, *written))

    def _noted(self, what: str, config: RunnableConfig, result: T) -> T:
        self.happened.append((what, config.get("configurable", {})["thread_id"]))
        return result
