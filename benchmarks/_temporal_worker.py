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
class WorkerStatus:
    """What a worker says of itself."""

    time: float
    """The machine's clock."""
    cpu: float
    """Seconds its process has had so far."""
    workflows_with_ended_activity: int
    """Workflows of which an activity has ended here, or has been left for somebody else to complete."""
    last_activity_ended_at: float
    """When the last of these did."""


class ActivityRecorder(Interceptor):
    """Notes when activities end. One that is left to somebody else leaves no trace in the history before it is done."""

    def __init__(self) -> None:
        self.ended: dict[str | None, float] = {}

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  # the SDK's
        return _RecordingInterceptor(next, self.ended)

    def status(self) -> WorkerStatus:
        return WorkerStatus(time.time(), time.process_time(), len(self.ended), max(self.ended.values(), default=0.0))


class _RecordingInterceptor(ActivityInboundInterceptor):
    def __init__(self, next_interceptor: ActivityInboundInterceptor, ended: dict[str | None, float]) -> None:
        super().__init__(next_interceptor)
        self._ended = ended

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  # the SDK's
        try:
            return await super().execute_activity(input)
        finally:
            self._ended[activity.info().workflow_id] = time.time()


async def run_worker(name: str, address: str, queue: str, workflows_only: str = "") -> None:
    side, recorder = SIDES[name], ActivityRecorder()
    # The SDK's core logs to standard output.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def write_status() -> None:
        os.write(output, f"{json.dumps(asdict(recorder.status()))}\n".encode())

    client = await side.client(address)
    with ThreadPoolExecutor(THREADS) as threads:
        worker = Worker(
            client,
            task_queue=queue,
            workflows=[side.workflow],
            activities=side.activities,
            activity_executor=threads,
            interceptors=[recorder],
            no_remote_activities=bool(workflows_only),
        )
        write_status()
        async with worker:
            while await asyncio.to_thread(sys.stdin.readline):
                write_status()


# --- from outside ---------------------------------------------------------------------------------------------------


@dataclass
class WorkerProcess:
    """The process, for whoever has started it."""

    process: asyncio.subprocess.Process
    log: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def next_status(self) -> WorkerStatus:
        """The next thing that it says. It says how it stands before it is asked, too: right before it runs."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the worker has ended:\n{self.log.read().decode()[-2000:]}")
        return WorkerStatus(**json.loads(line))

    async def status(self) -> WorkerStatus:
        assert self.process.stdin is not None
        self.process.stdin.write(b"?\n")
        return await self.next_status()


@asynccontextmanager
async def worker_process(
    name: str, address: str, queue: str, env: Mapping[str, str], *, workflows_only: bool = False
) -> AsyncGenerator[tuple[WorkerProcess, WorkerStatus]]:
    """A worker of this side, and how it stood right before it ran; it ends with the block."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWAITHUMANS_")}
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "benchmarks._temporal_worker",
                name,
                address,
                queue,
                *(["workflows-only"] if workflows_only else []),
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=inherited | dict(env),
        )
        worker = WorkerProcess(process, log)
        try:
            yield worker, await worker.next_status()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(run_worker(*sys.argv[1:]))
