"""Adapters of workflow engines: `awaithumans_adapters.temporal` and `awaithumans_adapters.langgraph`."""
