"""The waits table on SQLite or PostgreSQL: `open -> answered -> delivered`, or `parked`.

`Store` is what the other packages of the relay use. Each of its parts (`waits`) serves one user: the endpoints, the
dispatcher, the sweep, the operator. They read and write through one writer per process (`database`). `table` holds the
columns and statements.

The names load on first use, because the command line names the states and the defaults without a database.
"""

from typing import TYPE_CHECKING

from awaithumans_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from awaithumans_relay.store.store import Store
    from awaithumans_relay.store.table.rows import Wait
    from awaithumans_relay.store.wait_state import WaitState

__all__ = ["Store", "Wait", "WaitState"]

__getattr__, __dir__ = lazy_names(globals(), {"Store": "store", "Wait": "table.rows", "WaitState": "wait_state"})
