"""The relay alone under uvicorn, in as many processes as you like. Waits are in one database for all of them.

    uvicorn my_relay:app --factory --workers 2 --no-access-log --host 0.0.0.0 --port 8787

On one machine a SQLite file on a local disk (never on a network share) does: workers take turns at writing, and each
wait is delivered by one of them. On several machines they share a PostgreSQL:
AWAITHUMANS_RELAY_DATABASE=postgresql://relay@db/relay. The other settings: `awaithumans-relay serve --help`.

Settings beside those: TEMPORAL_ADDRESS (default localhost:7233), and Temporal's other variables and profiles for a
secured cluster. If the workers encrypt their payloads, give `connect` their data_converter, too.
"""

import os

from fastapi import FastAPI
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_relay import create_app


async def temporal() -> Client:
    """Connects when the first answer is to be delivered, so that the relay starts while Temporal is down."""
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    return await Client.connect(**config)


def app() -> FastAPI:
    """Each worker calls this for itself."""
    database = os.environ.get("AWAITHUMANS_RELAY_DATABASE", "sqlite:///awaithumans-relay.db")
    return create_app([TemporalEngine(temporal)], database=database)
