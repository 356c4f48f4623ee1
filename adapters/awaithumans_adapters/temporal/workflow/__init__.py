"""The workflow side: sandbox-safe, deterministic and replayed."""
