"""python -m tests.pgbouncer: two relays on a PostgreSQL behind PgBouncer in transaction mode; exit status 1 on failure.

Every callback must be acknowledged, and delivered exactly once. PGBOUNCER names the program if it is not on PATH.
"""

import asyncio
import json
import os
import pwd
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
from devservers import Process, free_port

from awaithumans_core import Route, Settings
from awaithumans_core.signing import SIGNATURE_HEADER, derive_webhook_key, sign
from awaithumans_relay import create_app
from tests.support.engines import CollectingEngine
from tests.support.postgres import PostgresServer
from tests.support.relay import served

CALLBACKS = 160
AT_ONCE = 16
ROUNDS = 4
PAYLOAD_KEY = secrets.token_urlsafe(32)
MISSING = "PgBouncer is not installed; run: apt-get update && apt-get install -y pgbouncer (or name it as PGBOUNCER)"
CONFIGURATION = """
[databases]
* = host={socket} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
"""


def program() -> str | None:
    """PgBouncer's path; Debian installs it where only root looks."""
    named = os.environ.get("PGBOUNCER")
    return named or shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def bouncer(command: str, postgres: PostgresServer, folder: Path) -> AsyncGenerator[str]:
    """A PgBouncer in front of this server; yields the URL of a new database behind it."""
    name, port = postgres.new_database(), free_port()
    (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(socket=postgres.socket_folder, port=port))
    arguments = [command, str(folder / "pgbouncer.ini")]
    if os.getuid() == 0:  # it does not run as root; the server's own user may use its socket
        owner = pwd.getpwuid(os.stat(postgres.socket_folder).st_uid).pw_name
        arguments[1:1] = ["-u", owner]
        folder.chmod(0o755)
    process = Process(arguments, folder)
    process.start()
    try:
        async with asyncio.timeout(20):
            while not await _listens(port):
                if not process.alive:
                    raise RuntimeError(f"PgBouncer has ended:\n{process.output()}")
                await asyncio.sleep(0.05)
        yield f"postgresql://postgres@127.0.0.1:{port}/{name}"
    finally:
        process.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def call_back(http: httpx.AsyncClient, relay: str, settings: Settings, number: int) -> int:
    key = f"question-{number}"
    token = settings.signer().issue(Route("shelf", {"place": key}, key))
    body = json.dumps({"task_id": f"task-{number}", "idempotency_key": key, "status": "completed", "response": {}})
    headers = {SIGNATURE_HEADER: sign(body.encode(), derive_webhook_key(PAYLOAD_KEY))}
    return (await http.post(f"{relay}/callbacks/{token}", content=body.encode(), headers=headers)).status_code


async def run(command: str) -> bool:
    settings = Settings.load(
        url="http://127.0.0.1:9", admin_api_token="-", relay_secret=secrets.token_urlsafe(32), payload_key=PAYLOAD_KEY
    )
    shelves, replies, ready = (CollectingEngine(), CollectingEngine()), Counter[int](), Counter[int]()
    postgres = PostgresServer()
    try:
        with tempfile.TemporaryDirectory() as name:
            async with AsyncExitStack() as stack:
                url = await stack.enter_async_context(bouncer(command, postgres, Path(name)))
                relays: list[str] = []
                for shelf in shelves:
                    port = free_port()
                    app = create_app([shelf], settings=settings, database=url)
                    await stack.enter_async_context(served(app, port, log_level="warning", access_log=False))
                    relays.append(f"http://127.0.0.1:{port}")
                http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
                slots = asyncio.Semaphore(AT_ONCE)

                async def one(number: int) -> None:
                    async with slots:
                        replies[await call_back(http, relays[number % 2], settings, number)] += 1

                for place in range(ROUNDS):
                    await asyncio.gather(*(one(number) for number in range(place, CALLBACKS, ROUNDS)))
                    ready.update([(await http.get(f"{relay}/readyz")).status_code for relay in relays])
                async with asyncio.timeout(25):
                    while sum(len(shelf.held) for shelf in shelves) < CALLBACKS:
                        await asyncio.sleep(0.1)
                await asyncio.sleep(1)
    finally:
        postgres.stop()
    delivered = Counter(outcome.task_id for shelf in shelves for _, outcome in shelf.held)
    twice = sum(1 for times in delivered.values() if times > 1)
    print(f"replies {dict(replies)}, delivered {len(delivered)} of {CALLBACKS}, twice {twice}, readyz {dict(ready)}")
    return (replies, len(delivered), twice, set(ready)) == (Counter({200: CALLBACKS}), CALLBACKS, 0, {200})


if __name__ == "__main__":
    found = program()
    if found is None:
        sys.exit(MISSING)
    sys.exit(0 if asyncio.run(run(found)) else 1)
