"""Web servers whose acknowledgements are compared.

python -m benchmarks._callback_servers KIND PORT FOLDER        (settings and keys: from the environment)

- `bare` reads a body and checks its HMAC, which is the minimum for a receiver of callbacks.
- `relay` is this package's relay. It stores its waits in FOLDER. Its engines `fast` and `langgraph` accept an answer
  immediately, and its engine `slow` accepts it after nine seconds.
- `official` is the receiver of the official LangGraph adapter, with its threads in FOLDER. The receiver of the official
  Temporal adapter is in `_official_receiver`.
"""

import asyncio
import hashlib
import hmac
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from awaithumans_core import Outcome, Route, Settings
from awaithumans_core.signing import derive_webhook_key

SLOW_SECONDS = 9.0
"""Just below the ten seconds that the awaithumans server allows for a callback."""


class DelayedEngine:
    """Engine that accepts every answer after a fixed delay."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self._seconds = seconds

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        if self._seconds:
            await asyncio.sleep(self._seconds)


def bare() -> FastAPI:
    app, key = FastAPI(), derive_webhook_key(os.environ["AWAITHUMANS_PAYLOAD_KEY"])

    @app.post("/callback")
    async def callback(request: Request) -> dict[str, bool]:
        signed = "sha256=" + hmac.new(key, await request.body(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signed, request.headers.get("x-awaithumans-signature", "")):
            raise HTTPException(401)
        return {"ok": True}

    _ = callback
    return app


def relay(folder: Path) -> FastAPI:
    from awaithumans_relay import create_app  # imported here, so that the bare server does not load it
    from awaithumans_relay.runtime.tuning import tune

    engines = [DelayedEngine("fast", 0), DelayedEngine("langgraph", 0), DelayedEngine("slow", SLOW_SECONDS)]
    app = create_app(engines, database=f"sqlite:///{folder / 'relay.db'}")
    tune()  # as the command line does
    return app


def official(folder: Path) -> FastAPI:
    from awaithumans.adapters.langgraph import dispatch_resume  # type: ignore[import-untyped]  # it ships no types

    from benchmarks._wakes import OFFICIAL, compiled_graphs, sqlite_saver

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        settings = Settings.load()
        async with compiled_graphs(settings, settings.url or "", settings.token(), sqlite_saver(folder)) as compiled:
            app.state.graph = compiled[OFFICIAL]
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/callback")
    async def callback(request: Request, thread: str) -> dict[str, bool]:
        await dispatch_resume(
            graph=app.state.graph,
            thread_id=thread,
            body=await request.body(),
            signature_header=request.headers.get("x-awaithumans-signature"),
        )
        return {"ok": True}

    _ = callback
    return app


def main() -> None:
    kind, port, folder = sys.argv[1:]
    apps = {"relay": relay, "official": official}
    app = bare() if kind == "bare" else apps[kind](Path(folder))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
