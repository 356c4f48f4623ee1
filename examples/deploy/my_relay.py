"""The relay alone under uvicorn, in any number of processes that share one database.

    uvicorn my_relay:app --factory --workers 2 --no-access-log --host 0.0.0.0 --port 8787

On one machine, a SQLite file on a local disk is enough (never on a network share). One worker writes at a time, and
each wait is delivered by one of them. On several machines they share a PostgreSQL:
AWAITHUMANS_RELAY_DATABASE=postgresql://relay@db/relay. `awaithumans-relay serve --help` lists the other settings.

Also set TEMPORAL_ADDRESS (default localhost:7233), and Temporal's other variables and profiles for a secured cluster.
If the workers encrypt their payloads, pass their data_converter to `connect`.
"""

import os

from fastapi import FastAPI
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_relay import create_app


async def temporal() -> Client:
    """Connect at the first delivery, so that the relay can start while Temporal is down."""
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    return await Client.connect(**config)


def app() -> FastAPI:
    """Create the relay application. uvicorn calls this once per worker process."""
    database = os.environ.get("AWAITHUMANS_RELAY_DATABASE", "sqlite:///awaithumans-relay.db")
    return create_app([TemporalEngine(temporal)], database=database)
