"""Where the waits are stored and how long they are kept, unless the relay is given something else."""

from datetime import timedelta

DEFAULT_DATABASE = "sqlite:///awaithumans-relay.db"
"""A file in the working directory."""

RETENTION = timedelta(days=30)
"""How long a wait is kept after it has ended."""
