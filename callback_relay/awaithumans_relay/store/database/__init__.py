"""Access to one database: its URL, connections, queue of writes and writer thread, and what concerns SQLite files."""

from awaithumans_relay.store.database.database import Database

__all__ = ["Database"]
