"""The web servers whose acknowledgements are compared: `python -m benchmarks._callback_servers KIND PORT FOLDER`.

`bare` reads a body and checks its HMAC, the least that a receiver of callbacks can do. `relay` is ours, its waits in a
file of the folder, with engines that take an answer at once (`swift`, and one that lets graphs register) and after nine
seconds (`slow`). `official` is the receiver of the official LangGraph adapter, with its threads in the folder; the one
of its Temporal adapter is in `_official_receiver`. Settings and keys: from the environment.
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
"""The server allows ten for a callback."""


class DelayedEngine:
    """Takes every answer, in this long."""

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
    from awaithumans_relay import create_app  # here, so that the bare one is bare
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
