"""`await_human` inside a LangGraph node: asks, interrupts, and continues with the answer."""

from awaithumans_adapters.langgraph.node.await_human import (
    _from_environment as _from_environment,  # pyright: ignore[reportPrivateUsage] - scripts reset the cached settings here
)
