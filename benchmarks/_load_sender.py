"""A process that sends HTTP requests as fast as the server answers them.

python -m benchmarks._load_sender PORT CONCURRENCY FILE

FILE contains the complete requests as a JSON list of strings. CONCURRENCY connections stay open, and each has one
request in flight. The process writes a line of JSON with the total time, the latency of each request
and its own CPU time. The CPU time shows whether the sender was the bottleneck.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class LoadResult:
    """Result of one run of the sender."""

    seconds: float
    """Time from the first request to the last response."""
    latencies: list[float]
    """Seconds per request, sorted."""
    statuses: dict[str, int]
    cpu: float
    """CPU seconds of the sender during the run."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return this percentile of the latencies in milliseconds."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1000


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], latencies: list[float], statuses: dict[str, int]) -> None:
        self._requests = requests
        self._latencies = latencies
        self._statuses = statuses
        self._answer = b""
        self._sent = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            self.ended.set_result(None)
            return
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, complete, body = self._answer.partition(b"\r\n\r\n")
        if not complete:
            return
        if len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self._latencies.append(time.perf_counter() - self._sent)
        status = head[9:12].decode()
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server has closed the connection"))


async def _send(port: int, concurrency: int, requests: Sequence[bytes]) -> LoadResult:
    latencies: list[float] = []
    statuses: dict[str, int] = {}
    remaining = iter(requests)
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Connection(remaining, latencies, statuses), "127.0.0.1", port))[1]
        for _ in range(concurrency)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    for connection in connections:
        connection.send()
    await asyncio.gather(*(connection.ended for connection in connections))
    return LoadResult(time.perf_counter() - began, sorted(latencies), statuses, time.process_time() - cpu)


# --- for the process that measures -----------------------------------------------------------------------------------


def request(path: str, body: bytes, headers: Mapping[str, str]) -> str:
    """Return a complete POST request as text."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", body.decode()])


async def send_load(port: int, concurrency: int, requests: Sequence[str], folder: Path) -> LoadResult:
    """Start a sender process that sends the requests over `concurrency` connections, and return its result."""
    file = folder / "requests.json"
    file.write_text(json.dumps(requests))
    sender = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks._load_sender", str(port), str(concurrency), str(file)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    output, _ = await sender.communicate()
    if sender.returncode:
        raise RuntimeError(f"the sender has ended with {sender.returncode}")
    return LoadResult(**json.loads(output))


def main() -> None:
    port, concurrency, file = sys.argv[1:]
    requests = [each.encode() for each in json.loads(Path(file).read_text())]
    print(json.dumps(asdict(asyncio.run(_send(int(port), int(concurrency), requests)))))


if __name__ == "__main__":
    main()
