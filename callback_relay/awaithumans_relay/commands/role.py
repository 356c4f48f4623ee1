"""Whose machine `doctor` examines: a relay's, which has keys and a database, or that of a worker or script."""

import os
from enum import StrEnum
from pathlib import Path

from awaithumans_relay.store.defaults import DEFAULT_DATABASE


class Role(StrEnum):
    """Whose machine is examined."""

    RELAY = "relay"
    WORKER = "worker"

    @property
    def other(self) -> "Role":
        """The other role."""
        return Role.WORKER if self is Role.RELAY else Role.RELAY


_OF_RELAY = ("AWAITHUMANS_WEBHOOK_KEY", "AWAITHUMANS_PAYLOAD_KEY", "AWAITHUMANS_RELAY_DATABASE")
"""Variables that only the environment of a relay holds."""


def role_here(database: str, *, graphs: bool, thread: str | None) -> tuple[Role, str]:
    """Return whose machine this is, with the reason: what is set, given or found here that only a relay has.

    Args:
        database: URL of the waits table.
        graphs: Whether graphs are given, which run in the relay's process.
        thread: The thread to read, which only a relay does.
    """
    if names := [name for name in _OF_RELAY if os.environ.get(name, "").strip()]:
        return Role.RELAY, f"{names[0]} is set"
    if database != DEFAULT_DATABASE:
        return Role.RELAY, "--database is given"
    if graphs or thread is not None:
        return Role.RELAY, f"{'--graph' if graphs else '--thread'} is given"
    if Path(DEFAULT_DATABASE.removeprefix("sqlite:///")).is_file():
        return Role.RELAY, "the database of a relay is in this folder"
    return Role.WORKER, "nothing that only a relay has is set here"
