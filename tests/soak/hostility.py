"""The stranger's process, seen from the soak: what it is given, and what it reports."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Leak:
    """A callback URL of a true wait, and what else its reader knows."""

    token: str
    task_id: str
    idempotency_key: str


@dataclass
class Seen:
    """What the stranger did, and how it was received."""

    seconds: float = 0.0
    sent: Counter[str] = field(default_factory=Counter[str])
    """Requests written to a connection, by kind."""
    statuses: Counter[str] = field(default_factory=Counter[str])
    """Replies, and connections that were closed without one (`closed`) or got none in time (`none`)."""
    unreachable: int = 0
    """Attempts at which the relay was dead."""
    dropped: int = 0
    """Requests that were due while too many were under way."""
    accepted: list[str] = field(default_factory=list[str])
    """Kinds of requests that got a reply below 400: a fault, each of them."""


class StrangerProcess:
    """The process, for the soak that has started it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def leak(self, leaks: Sequence[Leak]) -> None:
        """Let the stranger read these."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{json.dumps(asdict(leak))}\n" for leak in leaks).encode())
        await self._process.stdin.drain()

    async def stop(self) -> Seen:
        """End it; what it has seen."""
        written, _ = await self._process.communicate(b"")  # ends its input
        if self._process.returncode:
            raise RuntimeError(f"the stranger has ended with {self._process.returncode}")
        held = json.loads(written)
        return Seen(**held | {name: Counter(held[name]) for name in ("sent", "statuses")})


@asynccontextmanager
async def attacking(ports: Sequence[int], rate: float, seconds: float, seed: int) -> AsyncGenerator[StrangerProcess]:
    """A stranger who sends to these ports while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.stranger", ",".join(map(str, ports)), str(rate), str(seconds), str(seed)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield StrangerProcess(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
