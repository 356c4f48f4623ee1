"""A Temporal worker in a process of its own, so that memory and CPU time of the process are those of the worker.

python -m benchmarks._temporal_worker SIDE ADDRESS QUEUE [workflows-only]   (settings: AWAITHUMANS_*, read when it asks)

The process writes its status as a line of JSON when all imports are done and the client is connected, and then runs the
worker. It writes its status again for each line that it reads, and stops when its input ends. With `workflows-only` it
runs workflows but no activities.
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
"""Threads for activities that are not async."""


@dataclass(frozen=True)
class WorkerStatus:
    """Status that a worker process reports."""

    time: float
    """Time of the report, by the machine's clock."""
    cpu: float
    """CPU seconds of the process since its start."""
    workflows_with_ended_activity: int
    """Workflows with an activity that has returned, or has raised so that it is completed from outside."""
    last_activity_ended_at: float
    """Time at which the last of these activities returned or raised."""


class ActivityRecorder(Interceptor):
    """Records when activities end. The history does not show that an activity will be completed from outside."""

    def __init__(self) -> None:
        self.ended: dict[str | None, float] = {}

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  # the name that the SDK uses
        return _RecordingInterceptor(next, self.ended)

    def status(self) -> WorkerStatus:
        return WorkerStatus(time.time(), time.process_time(), len(self.ended), max(self.ended.values(), default=0.0))


class _RecordingInterceptor(ActivityInboundInterceptor):
    def __init__(self, next_interceptor: ActivityInboundInterceptor, ended: dict[str | None, float]) -> None:
        super().__init__(next_interceptor)
        self._ended = ended

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  # the name that the SDK uses
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


# --- for the process that measures -----------------------------------------------------------------------------------


@dataclass
class WorkerProcess:
    """A worker process, as the process that started it sees it."""

    process: asyncio.subprocess.Process
    log: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def next_status(self) -> WorkerStatus:
        """Return the next status that the worker writes. It writes the first one just before it runs."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the worker process has ended:\n{self.log.read().decode()[-2000:]}")
        return WorkerStatus(**json.loads(line))

    async def status(self) -> WorkerStatus:
        assert self.process.stdin is not None
        self.process.stdin.write(b"?\n")
        return await self.next_status()


@asynccontextmanager
async def worker_process(
    name: str, address: str, queue: str, env: Mapping[str, str], *, workflows_only: bool = False
) -> AsyncGenerator[tuple[WorkerProcess, WorkerStatus]]:
    """Run a worker of this side for the duration of the block. Also yield its status just before it ran."""
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
