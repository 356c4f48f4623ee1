"""A relay in a thread on a real port, for tests that attack it, and everything that can be observed of it."""

import base64
import logging
import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import sqlalchemy as sa
import uvicorn
from devservers import free_port
from fastapi import FastAPI

from awaithumans_core import Outcome, Route, Settings
from awaithumans_core.signing import sign
from awaithumans_relay import create_router
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.table.schema import waits

KEY = bytes(range(32))
SECRET = secrets.token_urlsafe(32)
OPERATOR_TOKEN = secrets.token_urlsafe(32)


class AcceptingEngine:
    """An engine that accepts every answer."""

    name = "taker"

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        pass


class ThreadedRelay(logging.Handler):
    """Address, proofs, table and log of a relay in a thread."""

    def __init__(self, database: str) -> None:
        super().__init__(logging.ERROR)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = Settings.load(
            url="http://127.0.0.1:9",
            admin_api_token="none",
            relay_secret=SECRET,
            webhook_key=base64.b64encode(KEY).decode(),
            relay_operator_token=OPERATOR_TOKEN,
        )
        self.signer = self.settings.signer()
        self.http = httpx.Client(base_url=self.url)
        self.database = sa.create_engine(Database(database).url)
        self.errors: list[str] = []
        self.app = FastAPI()  # with FastAPI's defaults: redirects and an OpenAPI document
        self.app.include_router(create_router([AcceptingEngine()], settings=self.settings, database=database))

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))

    def rows(self, key: str | None = None) -> list[dict[str, Any]]:
        """Return the stored rows, for one question or for all."""
        found = sa.select(waits)
        with self.database.connect() as db:
            return [
                dict(row)
                for row in db.execute(found if key is None else found.where(waits.c.idempotency_key == key)).mappings()
            ]

    def token(self, key: str) -> str:
        return self.signer.issue(Route("taker", {"place": "here"}, key))

    def proof(self, key: str, task_id: str | None) -> str:
        return self.signer.prove(Route("taker", {"place": "here"}, key), task_id)

    def call_back(self, token: str, body: bytes, **headers: str) -> httpx.Response:
        """Send a callback with a correct signature."""
        return self.http.post(
            f"/callbacks/{token}", content=body, headers={"X-Awaithumans-Signature": sign(body, KEY), **headers}
        )


@contextmanager
def threaded_relay(database: str, *, parser: Literal["auto", "h11", "httptools"] = "auto") -> Generator[ThreadedRelay]:
    """Run a relay; `parser` is uvicorn's HTTP parser."""
    relay = ThreadedRelay(database)
    config = uvicorn.Config(
        relay.app, host="127.0.0.1", port=relay.port, log_level="warning", access_log=False, http=parser
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    loggers = [logging.getLogger(name) for name in ("awaithumans", "uvicorn.error", "asyncio")]
    thread.start()
    for logger in loggers:
        logger.addHandler(relay)
    try:
        until = time.monotonic() + 10
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        yield relay
    finally:
        server.should_exit = True
        thread.join(10)
        for logger in loggers:
            logger.removeHandler(relay)
        relay.http.close()
        relay.database.dispose()
