"""The waits table on SQLite or PostgreSQL: `open -> answered -> delivered`, or `parked`.

`Store` is what the other packages of the relay use. Each of its parts (`waits`) serves one user: the endpoints, the
dispatcher, the sweep, the operator. They read and write through one writer per process (`database`). `table` holds the
columns and statements.
"""

from awaithumans_relay.store.store import DEFAULT_DATABASE, Store
from awaithumans_relay.store.table.rows import Wait, WaitState

__all__ = ["DEFAULT_DATABASE", "Store", "Wait", "WaitState"]
