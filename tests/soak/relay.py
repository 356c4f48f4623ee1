"""One relay of the soak: `python -m tests.soak.relay PORT DATABASE TEMPORAL LEASE_SECONDS`.

As `awaithumans-relay serve --temporal`, with leases of another length: a small soak cannot wait for those of the dead.
"""

import functools
import sys

import uvicorn
from temporalio.client import Client

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_relay import app as relay
from awaithumans_relay.dispatcher import Dispatcher


def main(port: str, database: str, temporal: str, lease_seconds: str) -> None:
    shorter = functools.partial(Dispatcher, lease_seconds=float(lease_seconds))
    vars(relay)["Dispatcher"] = shorter  # not an option of the relay: nobody else has a reason to change it
    app = relay.create_app([TemporalEngine(lambda: Client.connect(temporal))], database=database)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
