"""The web server that receives callbacks for the official Temporal adapter, as in the adapter's example.

python -m benchmarks._official_receiver PORT ADDRESS        (the key: AWAITHUMANS_PAYLOAD_KEY)
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from awaithumans.adapters.temporal import dispatch_signal  # type: ignore[import-untyped]  # it ships no types
from devservers import HumansServer, Process, free_port
from fastapi import FastAPI, HTTPException, Request
from temporalio.client import Client

ROOT = Path(__file__).resolve().parents[1]


def create_app(address: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.temporal = await Client.connect(address)
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/awaithumans/callback")
    async def callback(request: Request, wf: str) -> dict[str, bool]:
        try:
            await dispatch_signal(
                temporal_client=app.state.temporal,
                workflow_id=wf,
                body=await request.body(),
                signature_header=request.headers.get("x-awaithumans-signature"),
            )
        except PermissionError as refused:
            raise HTTPException(401, str(refused)) from refused
        except ValueError as refused:
            raise HTTPException(400, str(refused)) from refused
        return {"ok": True}

    _ = callback
    return app


@asynccontextmanager
async def official_receiver(humans: HumansServer, address: str, folder: Path) -> AsyncGenerator[str]:
    """Run the receiver in a process of its own and yield its address."""
    port = free_port()
    process = Process(
        [sys.executable, "-m", "benchmarks._official_receiver", str(port), address],
        folder,
        {"AWAITHUMANS_PAYLOAD_KEY": humans.payload_key, "PYTHONPATH": str(ROOT)},
    )
    process.start()
    try:
        url = f"http://127.0.0.1:{port}"
        await process.answers(f"{url}/openapi.json")
        yield url
    finally:
        process.stop()


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
