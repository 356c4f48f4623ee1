"""Adapters for workflow engines: `awaithumans_adapters.temporal` and `awaithumans_adapters.langgraph`."""
