"""A Temporal worker in a process of its own, so that its memory and its CPU are the worker's and nobody else's.

python -m benchmarks._temporal_worker SIDE ADDRESS QUEUE [alone]        (settings: AWAITHUMANS_*, read when it asks)

Once everything is imported and the client is connected it writes a line of JSON and runs; for every line it is sent it
writes another, which says how it stands. It stops when it is sent no more. Alone it runs workflows and no activity.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from benchmarks._sides import SIDES

ROOT = Path(__file__).resolve().parents[1]
THREADS = 4
"""For activities that are not async."""


@dataclass(frozen=True)
class Standing:
    """What a worker says of itself."""

    at: float
    """The machine's clock."""
    cpu: float
    """Seconds its process has had so far."""
    acted: int
    """Workflows of which an activity has ended here, or has been left for somebody else to complete."""
    acted_at: float
    """When the last of these did."""


class Acts(Interceptor):
    """Notes when activities end. One that is left to somebody else leaves no trace in the history before it is done."""

    def __init__(self) -> None:
        self.ended: dict[str | None, float] = {}

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  # the SDK's
        return _Noting(next, self.ended)

    def standing(self) -> Standing:
        return Standing(time.time(), time.process_time(), len(self.ended), max(self.ended.values(), default=0.0))


class _Noting(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, ended: dict[str | None, float]) -> None:
        super().__init__(following)
        self._ended = ended

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  # the SDK's
        try:
            return await super().execute_activity(input)
        finally:
            self._ended[activity.info().workflow_id] = time.time()


async def work(name: str, address: str, queue: str, alone: str = "") -> None:
    side, acts = SIDES[name], Acts()
    # The SDK's core logs to standard output.
    said = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell() -> None:
        os.write(said, f"{json.dumps(asdict(acts.standing()))}\n".encode())

    client = await side.client(address)
    with ThreadPoolExecutor(THREADS) as threads:
        worker = Worker(
            client,
            task_queue=queue,
            workflows=[side.workflow],
            activities=side.activities,
            activity_executor=threads,
            interceptors=[acts],
            no_remote_activities=bool(alone),
        )
        tell()
        async with worker:
            while await asyncio.to_thread(sys.stdin.readline):
                tell()


# --- from outside ---------------------------------------------------------------------------------------------------


@dataclass
class WorkerProcess:
    """The process, for whoever has started it."""

    process: asyncio.subprocess.Process
    log: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def heard(self) -> Standing:
        """The next thing that it says. It says how it stands before it is asked, too: right before it runs."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the worker has ended:\n{self.log.read().decode()[-2000:]}")
        return Standing(**json.loads(line))

    async def standing(self) -> Standing:
        assert self.process.stdin is not None
        self.process.stdin.write(b"?\n")
        return await self.heard()


@asynccontextmanager
async def working(
    name: str, address: str, queue: str, env: Mapping[str, str], *, alone: bool = False
) -> AsyncGenerator[tuple[WorkerProcess, Standing]]:
    """A worker of this side, and how it stood right before it ran; it ends with the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWAITHUMANS_")}
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks._temporal_worker", name, address, queue, *(["alone"] if alone else [])),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=kept | dict(env),
        )
        worker = WorkerProcess(process, log)
        try:
            yield worker, await worker.heard()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
