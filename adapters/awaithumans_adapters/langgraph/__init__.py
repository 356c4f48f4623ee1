"""LangGraph adapter: `await_human` in nodes, people for unmodified graphs and for agents, and engines for the relay.

from awaithumans_adapters.langgraph import await_human

async def review(state: State) -> dict:
    decision = await await_human(task=..., payload=..., response_schema=Decision)
    return {"approved": decision.approved}
"""

from typing import TYPE_CHECKING, Any

try:
    import langgraph as _  # noqa: F401  # only whether it is there is asked
except ImportError as missing:
    raise ImportError(
        "the LangGraph adapter needs langgraph: pip install 'awaithumans-workflows[langgraph]'"
    ) from missing

from awaithumans_adapters.langgraph.graph_engine.engine import GraphEngine, Resumed
from awaithumans_adapters.langgraph.graph_engine.event_loop_thread import GraphThread
from awaithumans_adapters.langgraph.graph_engine.events import GraphEvent
from awaithumans_adapters.langgraph.node.await_human import await_human, await_human_sync
from awaithumans_adapters.langgraph.node.escalation import escalate
from awaithumans_adapters.langgraph.server_engine.engine import LangGraphServerEngine
from awaithumans_adapters.langgraph.server_engine.target import ServerTarget
from awaithumans_adapters.langgraph.unmodified.human_interrupts import HumanInterrupts

if TYPE_CHECKING:
    from awaithumans_adapters.langgraph.approval_middleware import HumanApproval

__all__ = [
    "GraphEngine",
    "GraphEvent",
    "GraphThread",
    "HumanApproval",
    "HumanInterrupts",
    "LangGraphServerEngine",
    "Resumed",
    "ServerTarget",
    "await_human",
    "await_human_sync",
    "escalate",
]


def __getattr__(name: str) -> Any:
    """Load `HumanApproval` on first access, because it needs langchain, which graphs do not need.

    Raises:
        ImportError: langchain is not installed.
    """
    if name != "HumanApproval":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from awaithumans_adapters.langgraph.approval_middleware import HumanApproval
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "langchain":
            raise
        raise ImportError("HumanApproval needs langchain: pip install 'awaithumans-workflows[langchain]'") from missing
    return HumanApproval
