"""`await_human` for LangGraph nodes: creates the task, interrupts the node, and returns the answer on resume."""

from awaithumans_adapters.langgraph.default_human_tasks import (
    _from_environment as _from_environment,  # pyright: ignore[reportPrivateUsage] - scripts reset the cached settings here
)
