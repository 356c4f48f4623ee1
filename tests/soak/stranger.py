"""A stranger who sends hostile requests at a steady rate, from a process of its own.

python -m tests.soak.stranger PORT,PORT... RATE SECONDS SEED

The stranger has no secret, but reads callback URLs that have leaked: one line of JSON each (`Leak`) on standard input.
It stops when its input ends, at the latest after SECONDS, and writes what it has seen (`Seen`) as a line of JSON. The
rate counts the requests of all kinds to all ports together. No request of it may be accepted.
"""

import asyncio
import base64
import json
import random
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import quote

from awaithumans_core.signing import SIGNATURE_HEADER, TASK_ID_HEADER, sign
from tests.soak.hostility import Leak, Seen

MAX_OPEN = 900
"""Connections under way; a request that is due while there are as many is dropped, not made up for."""
TICK_SECONDS = 0.01
CONNECT_SECONDS = 5.0
REPLY_SECONDS = 15.0
"""A slow connection is held for as long, unless the relay ends it before."""
KB = 1024


def http(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A request, written out."""
    lines = [f"{method} {path} HTTP/1.1", "host: relay", f"content-length: {len(body)}", "connection: close"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


# --- kinds of requests ----------------------------------------------------------------------------------------------

ODD_TASK_IDS = ("..", "../status", "%2e%2e%2fstatus", "a?b=1", "a#b", "a b", "a\x00b", "é", "", "x" * 65, "x" * 20_000)


def forged_answer(leak: Leak) -> bytes:
    answer = {"task_id": leak.task_id, "idempotency_key": leak.idempotency_key, "status": "completed"}
    return json.dumps(answer | {"response": {"approved": True, "note": "forged"}}).encode()


def wrong_token(leak: Leak, _: random.Random) -> bytes:
    body = forged_answer(leak)
    headers = {SIGNATURE_HEADER: sign(body, secrets.token_bytes(32))}
    return http("POST", f"/callbacks/{secrets.token_urlsafe(96)}.{secrets.token_urlsafe(32)}", headers, body)


def large_body_with_wrong_token(leak: Leak, chance: random.Random) -> bytes:
    path = f"/callbacks/{leak.token[:-4]}AAAA"
    return http("POST", path, {}, b"x" * chance.randrange(64 * KB, 1024 * KB))


def leaked_url_with_bad_body(leak: Leak, chance: random.Random) -> bytes:
    body = chance.choice(
        [b"", b"{", b"null", b"[" * 10_000, chance.randbytes(10_000), b"x" * chance.randrange(64 * KB, 1024 * KB)]
    )
    return http("POST", f"/callbacks/{leak.token}", {SIGNATURE_HEADER: "sha256=" + "0" * 64}, body)


def leaked_url_with_body_of_another_key(leak: Leak, _: random.Random) -> bytes:
    body = forged_answer(leak)
    headers = {SIGNATURE_HEADER: sign(body, secrets.token_bytes(32)), TASK_ID_HEADER: leak.task_id}
    return http("POST", f"/callbacks/{leak.token}", headers, body)


def registration_with_leaked_url(leak: Leak, _: random.Random) -> bytes:
    headers = {"authorization": f"Bearer {leak.token}"}
    return http("PUT", f"/waits/{leak.task_id}", headers, b'{"timeout_seconds": 60, "missing": true}')


def odd_task_id(leak: Leak, chance: random.Random) -> bytes:
    name = chance.choice(ODD_TASK_IDS)
    path = chance.choice([quote(name, safe=""), quote(name, safe="/?#%")])
    return http("PUT", f"/waits/{path}", {"authorization": f"Bearer {leak.token}"}, b'{"timeout_seconds": 60}')


def huge_headers(_: Leak, chance: random.Random) -> bytes:
    return http("POST", "/callbacks/x", {"x-filler": "a" * chance.randrange(40 * KB, 400 * KB)})


def slow_large_body(leak: Leak, chance: random.Random) -> bytes:
    return http("POST", f"/callbacks/{leak.token}", {}, b"x" * chance.randrange(64 * KB, 2048 * KB))[:-1]


def slow_connection(leak: Leak, chance: random.Random) -> bytes:
    begun = http("POST", f"/callbacks/{leak.token}", {}, b"x" * 4000)
    return begun[: chance.choice([0, 10, len(begun) - 1])]


def wrong_operator_token(_: Leak, chance: random.Random) -> bytes:
    guess = secrets.token_urlsafe(32)
    basic = base64.b64encode(f"operator:{guess}".encode()).decode()
    method, path = chance.choice([("GET", "/waits"), ("GET", "/operate"), ("POST", "/waits/redrive")])
    return http(method, path, {"authorization": chance.choice([f"Bearer {guess}", f"Basic {basic}"])})


def not_http(_: Leak, chance: random.Random) -> bytes:
    return b"\x16\x03\x01" + chance.randbytes(200) + b"\r\n\r\n"


Kind = Callable[[Leak, random.Random], bytes]
"""Writes a request out."""

KINDS: Sequence[Kind] = [
    wrong_token,
    large_body_with_wrong_token,
    leaked_url_with_bad_body,
    leaked_url_with_body_of_another_key,
    registration_with_leaked_url,
    odd_task_id,
    huge_headers,
    slow_large_body,
    slow_connection,
    wrong_operator_token,
    not_http,
]


# --- the process ----------------------------------------------------------------------------------------------------


class Stranger:
    """Sends requests of random kinds to random ports until it is stopped."""

    def __init__(self, ports: Sequence[int], rate: float, seconds: float, seed: int) -> None:
        self._ports, self._rate, self._seconds = ports, rate, seconds
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        self._leaks = [Leak("e30.e30", "a", "a")]
        """At first a token that has the form of one."""
        self._under_way: set[asyncio.Task[None]] = set()
        self.seen = Seen()

    async def run(self) -> None:
        """Send at the rate until the input ends or the time is up."""
        reading = asyncio.create_task(asyncio.to_thread(self._read_leaks))
        begun, due = time.monotonic(), 0
        while not reading.done() and (since := time.monotonic() - begun) < self._seconds:
            for _ in range(int(since * self._rate) - due):
                due += 1
                self._begin()
            await asyncio.sleep(TICK_SECONDS)
        self.seen.seconds = time.monotonic() - begun
        for request in self._under_way:
            request.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _read_leaks(self) -> None:
        for line in sys.stdin:
            self._leaks.append(Leak(**json.loads(line)))

    def _begin(self) -> None:
        if len(self._under_way) >= MAX_OPEN:
            self.seen.dropped += 1
            return
        request = asyncio.create_task(self._send(self._random.choice(self._ports), self._random.choice(KINDS)))
        self._under_way.add(request)
        request.add_done_callback(self._under_way.discard)

    async def _send(self, port: int, kind: Kind) -> None:
        request = kind(self._random.choice(self._leaks), self._random)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            self.seen.unreachable += 1
            return
        try:
            writer.write(request)
            self.seen.sent[kind.__name__] += 1
            status = await self._status(reader, writer)
            self.seen.statuses[status] += 1
            if status < "400":
                self.seen.accepted.append(kind.__name__)
        finally:
            writer.transport.abort()

    async def _status(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        line = b""
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                with suppress(ConnectionError):
                    await writer.drain()
                line = await reader.readline()
        except (OSError, ValueError) as ended:
            return "none" if isinstance(ended, TimeoutError) else "closed"
        return line[9:12].decode("ascii", "replace") if line.startswith(b"HTTP/1.1 ") else "closed"


def main(ports: str, rate: str, seconds: str, seed: str) -> None:
    stranger = Stranger([int(port) for port in ports.split(",")], float(rate), float(seconds), int(seed))
    asyncio.run(stranger.run())
    print(json.dumps(vars(stranger.seen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
