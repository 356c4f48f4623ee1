"""The relay inside a FastAPI app that you have already. It starts and stops with the app.

    uvicorn in_your_app:app --no-access-log

The server must reach it from outside: with the prefix below, AWAITHUMANS_RELAY_URL=https://your.app/awaithumans for
everybody who asks.
"""

import os

from fastapi import FastAPI
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_relay import create_router

# A redirect would count as a delivered callback; the relay needs no slashes redirected.
app = FastAPI(title="Orders", redirect_slashes=False)


async def temporal() -> Client:
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    return await Client.connect(**config)  # with data_converter=... if your workers encrypt their payloads


database = os.environ.get("AWAITHUMANS_RELAY_DATABASE", "sqlite:///awaithumans-relay.db")
app.include_router(create_router([TemporalEngine(temporal)], database=database), prefix="/awaithumans")


@app.get("/orders")
async def orders() -> list[str]:
    return ["what your app does besides"]
