"""The workflow side of the Temporal adapter: sandbox-safe, deterministic, and replayed from the history."""
