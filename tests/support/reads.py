"""A checkpointer that counts."""

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver


class Reads(InMemorySaver):
    """LangGraph's saver in memory, which counts what is read of it, and has something of its own."""

    own = "the saver's"

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Counted; the async method calls this one."""
        self.reads += 1
        return super().get_tuple(config)
