"""The waits table on SQLite or PostgreSQL: `open -> answered -> delivered`, or `parked`.

`Store` is what the other packages of the relay use. It reads and writes through one writer per process (`database`,
`write_queue`); `table` holds the columns and statements, `sqlite` what concerns files.
"""

from awaithumans_relay.store.waits import DEFAULT_DATABASE, Store, Wait, WaitState

__all__ = ["DEFAULT_DATABASE", "Store", "Wait", "WaitState"]
