"""One relay of the soak: `python -m tests.soak.relay PORT DATABASE TEMPORAL LEASE_SECONDS`.

`awaithumans-relay serve --temporal`, with leases of another length: a small soak cannot wait for those of the dead.
"""

import functools
import sys

from awaithumans_relay import app as relay
from awaithumans_relay.cli import cli
from awaithumans_relay.dispatch.dispatcher import Dispatcher


def main(port: str, database: str, temporal: str, lease_seconds: str) -> None:
    shorter = functools.partial(Dispatcher, lease_seconds=float(lease_seconds))
    vars(relay)["Dispatcher"] = shorter  # not an option of the relay: users have no reason to change it
    cli(["serve", "--temporal", temporal, "--port", port, "--database", database, "--log-level", "warning"])


if __name__ == "__main__":
    main(*sys.argv[1:])
