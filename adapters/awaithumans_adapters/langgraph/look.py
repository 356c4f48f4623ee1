"""One look at a thread: each of its checkpoints is read once, by whoever asks first."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, DeltaChannelHistory, copy_checkpoint
from langgraph.types import StateSnapshot

LENT_CHECKPOINTER = "__pregel_checkpointer"
"""Config key by which a graph lends its checkpointer to a subgraph."""


class Look(BaseCheckpointSaver[Any]):
    """A checkpointer to read with, lent to the graph; it reads nothing twice."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._seen: dict[tuple[str, str | None], CheckpointTuple | None] = {}
        """By graph, and checkpoint if not the latest."""
        self.snapshot: StateSnapshot | None = None
        """The thread as it stands, subgraphs included, once somebody has asked for it."""

    def lent(self, config: RunnableConfig) -> RunnableConfig:
        """The config with which a graph reads through this look."""
        return {**config, "configurable": {**config.get("configurable", {}), LENT_CHECKPOINTER: self}}

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint, as it was when it was first asked for."""
        place = _place(config)
        if place not in self._seen:
            self._seen[place] = self._saver.get_tuple(config)
        return _to_work_on(self._seen[place])

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The same, for savers with async methods."""
        place = _place(config)
        if place not in self._seen:
            self._seen[place] = await self._saver.aget_tuple(config)
        return _to_work_on(self._seen[place])

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What came before a checkpoint: the saver has a way of its own to it."""
        return self._saver.get_delta_channel_history(config=config, channels=channels)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The same, for savers with async methods."""
        return await self._saver.aget_delta_channel_history(config=config, channels=channels)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> BaseCheckpointSaver[Any]:
        """A graph that is strict about what it loads looks with a saver of its own."""
        return self._saver.with_allowlist(extra_allowlist)


def _place(config: RunnableConfig) -> tuple[str, str | None]:
    place = config.get("configurable", {})
    return place.get("checkpoint_ns", ""), place.get("checkpoint_id")


def _to_work_on(saved: CheckpointTuple | None) -> CheckpointTuple | None:
    """A graph that shows a checkpoint applies to it what its tasks have written."""
    return saved and saved._replace(checkpoint=copy_checkpoint(saved.checkpoint))
