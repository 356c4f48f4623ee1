"""The relay inside an existing FastAPI app. It starts and stops with the app.

    uvicorn in_your_app:app --no-access-log

The awaithumans server must be able to reach it. With the prefix below, callers have
AWAITHUMANS_RELAY_URL=https://your.app/awaithumans.
"""

import os

from fastapi import FastAPI
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_relay import create_router

# The awaithumans server counts a redirect as a delivered callback.
app = FastAPI(title="Orders", redirect_slashes=False)


async def temporal() -> Client:
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    return await Client.connect(**config)  # with data_converter=... if your workers encrypt their payloads


database = os.environ.get("AWAITHUMANS_RELAY_DATABASE", "sqlite:///awaithumans-relay.db")
app.include_router(create_router([TemporalEngine(temporal)], database=database), prefix="/awaithumans")


@app.get("/orders")
async def orders() -> list[str]:
    return ["the endpoints of your app"]
