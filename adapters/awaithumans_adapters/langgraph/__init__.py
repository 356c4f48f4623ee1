"""LangGraph: `await_human` in nodes, an engine for the relay.

from awaithumans_adapters.langgraph import await_human

async def review(state: State) -> dict:
    decision = await await_human(task=..., payload=..., response_schema=Decision)
    return {"approved": decision.approved}
"""

try:
    import langgraph as _  # noqa: F401  # only whether it is there is asked
except ImportError as missing:
    raise ImportError(
        "the LangGraph adapter needs langgraph: pip install 'awaithumans-workflows[langgraph]'"
    ) from missing

from awaithumans_adapters.langgraph.engine import GraphEngine, Resumed
from awaithumans_adapters.langgraph.node import await_human, await_human_sync

__all__ = ["GraphEngine", "Resumed", "await_human", "await_human_sync"]
