"""The relay in the process of `awaithumans-relay dev`, with the endpoint by which clients confirm the instance."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from awaithumans_core.discovery import CHALLENGE, INSTANCE_PATH, proof_of
from awaithumans_core.engine import Engine
from awaithumans_core.settings import Settings
from awaithumans_relay.app import create_app
from awaithumans_relay.dev.processes import NOT_INHERITED, POLL_SECONDS, without_proxy
from awaithumans_relay.web import bounded_http
from awaithumans_relay.web.problem import problem

HANG_UP_SECONDS = 1
"""Seconds that callers have when the relay stops."""


def use_environment(variables: Mapping[str, str], *, own_temporal: bool) -> None:
    """Give this process the settings of the instance and no others.

    Graphs run in this process, and their nodes ask with the settings of its environment.

    Args:
        variables: The settings.
        own_temporal: Whether the Temporal server is one of the instance, so that no other setting for Temporal counts.
    """
    others = NOT_INHERITED if own_temporal else NOT_INHERITED[:1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    os.environ.clear()
    os.environ.update(without_proxy(kept) | dict(variables))


@asynccontextmanager
async def serving(engines: Sequence[Engine], database: str, port: int) -> AsyncGenerator["asyncio.Task[None]"]:
    """Run the relay with the settings of the environment. Yield the task that serves, once it serves."""
    settings = Settings.load()
    app = create_app(engines, settings=settings, database=database)
    confirm_instance(app, settings.relay_secret[0].get_secret_value(), settings.relay())
    config = uvicorn.Config(
        app,
        lifespan="off",  # run here, so that its errors are raised here
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=HANG_UP_SECONDS,
        **bounded_http.OPTIONS,
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", port)) as listening:
        async with app.router.lifespan_context(app):
            task = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                while not (server.started or task.done()):
                    await asyncio.sleep(POLL_SECONDS)
                yield task
            finally:
                server.should_exit = True
                await asyncio.wait([task])


def confirm_instance(app: FastAPI, relay_secret: str, relay_url: str) -> None:
    """Add the endpoint that proves to a client that this relay has the secret of its discovery file.

    The proof is made for one purpose and reveals nothing about the secret. A challenge has one exact form.
    """

    async def instance(challenge: str = "") -> JSONResponse:
        if CHALLENGE.fullmatch(challenge) is None:
            return problem(422, "INVALID_CHALLENGE", "challenge: base64url of 32 random bytes")
        return JSONResponse({"proof": proof_of(relay_secret, relay_url, challenge)})

    app.add_api_route(INSTANCE_PATH, instance, methods=["GET"], response_model=None, include_in_schema=False)


class _Server(uvicorn.Server):
    """A server that leaves signals to the command that runs it."""

    @contextmanager
    def capture_signals(self) -> Generator[None, Any]:
        yield
