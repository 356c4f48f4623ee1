"""python -m tests.compat: the checks on every interpreter, in the lowest and newest versions and with each extra alone.

The exit status is 1 if a check fails. `--constraints` renews the files of versions instead. `--only TEXT` runs the
environments whose interpreter or name contains it. `--write` writes docs/reference/compatibility.md.
"""

import argparse
import asyncio
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from devservers import TemporalServer, started, tool
from temporalio.client import Client

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_core import Engine
from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans
from tests.compat.environments import (
    ROOT,
    CommandError,
    Environment,
    build_wheel,
    environments,
    interpreters,
    renew_constraints,
    run,
)
from tests.compat.page import PAGE, page
from tests.support.engines import CollectingEngine
from tests.support.postgres import PostgresServer
from tests.support.relay import running_relay
from tests.support.servers import FakeServer

CHECKS = {
    "imports": set[str](),
    "script": set[str](),
    "fake_humans": {"testing"},
    "temporal": {"temporal"},
    "temporal_days": {"temporal", "testing"},
    "langgraph_resume": {"langgraph"},
    "langchain_agent": {"langchain"},
    "relay": {"relay"},
}
"""Programs in `checks`, with the extras each of them needs."""

AT_ONCE = 2
"""Environments under test at the same time."""
CHECK_SECONDS = 180
SHOWN_LINES = 30
"""Of the output of a program that failed: a traceback ends with what matters."""


class Servers:
    """What the checks talk to, running in `.venv`, so that an environment needs no more than the extra under test."""

    def __init__(self, env: dict[str, str], postgres: PostgresServer, folder: Path) -> None:
        self._env = env
        self._postgres = postgres
        self._folder = folder

    def env(self, environment: Environment, folder: Path) -> dict[str, str]:
        """Variables of a check; nothing of the caller's own settings or modules."""
        foreign = ("AWAITHUMANS_", "TEMPORAL_", "PYTHON", "VIRTUAL_ENV", "LANGSMITH_", "LANGCHAIN_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        database = {"COMPAT_POSTGRES": self._postgres.database()} if {"relay", "postgres"} <= environment.extras else {}
        return inherited | {"HOME": str(folder)} | self._env | database

    def new_folder(self) -> Path:
        """An empty working directory."""
        return Path(tempfile.mkdtemp(dir=self._folder))


@asynccontextmanager
async def servers() -> AsyncGenerator[Servers]:
    """A task server whose people approve everything, Temporal, PostgreSQL, and a relay that wakes workflows."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        people = FakeHumans(clock=SystemClock())
        people.answer("Pay back", {"approved": True}).after(0.5)
        people.answer(None, {"decision": "approve"}).after(0.5)  # tool calls
        humans = FakeServer(people, stack.enter_context(people.serving()), folder)
        temporal = TemporalServer(folder / "temporal")
        (folder / "temporal").mkdir()
        await stack.enter_async_context(started(temporal))
        postgres = PostgresServer()
        stack.callback(postgres.stop)
        engines: list[Engine] = [
            TemporalEngine(lambda: Client.connect(temporal.address)),
            CollectingEngine("langgraph"),
        ]
        relay = await stack.enter_async_context(running_relay(engines, humans, folder))
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the task server may end with open connections
        env = {
            "AWAITHUMANS_URL": humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
            "AWAITHUMANS_PAYLOAD_KEY": humans.payload_key,
            "AWAITHUMANS_RELAY_URL": relay.url,
            "AWAITHUMANS_RELAY_SECRET": relay.settings.relay_secret[0].get_secret_value(),
            "COMPAT_TEMPORAL": temporal.address,
            "COMPAT_TEST_SERVER": tool("temporal-test-server"),
        }
        yield Servers(env, postgres, folder)


async def check(environment: Environment, name: str, servers: Servers) -> None:
    """Run one program of `checks` in the environment, in a folder of its own."""
    program, folder = Path(__file__).parent / "checks" / f"{name}.py", servers.new_folder()
    command: list[str | Path] = [environment.python, "-P", program, *sorted(environment.extras)]
    async with asyncio.timeout(CHECK_SECONDS):
        await run(*command, env=servers.env(environment, folder), cwd=folder)


async def passed(environment: Environment, step: str, work: Coroutine[Any, Any, None]) -> bool:
    """Do one step and print its line, and what the program printed if it failed."""
    began, problem = time.monotonic(), ""
    try:
        await work
    except (CommandError, TimeoutError) as error:
        problem = str(error) or f"not finished after {CHECK_SECONDS} s"
    result = "FAILED" if problem else "ok"
    line = f"{environment.label} {step:18} {result:6} {time.monotonic() - began:6.1f} s"
    print("\n".join([line, *(f"    {each}" for each in problem.splitlines()[-SHOWN_LINES:])]), flush=True)
    return not problem


async def examine(environment: Environment, wheel: Path, servers: Servers) -> list[str]:
    """Install an environment and run its checks; return the steps that failed."""
    if not await passed(environment, "install", environment.install(wheel)):
        return [f"{environment.label} install"]
    checks = [name for name, needed in CHECKS.items() if needed <= environment.extras]
    return [
        f"{environment.label} {name}"
        for name in checks
        if not await passed(environment, name, check(environment, name, servers))
    ]


async def examine_all(only: str, *, write: bool) -> list[str]:
    """Run everything; return what failed."""
    found = await interpreters()
    print("interpreters:", ", ".join(f"{each.version} ({each.path})" for each in found), flush=True)
    chosen = [each for interpreter in found for each in environments(interpreter) if only in each.label]
    wheel, slots = await build_wheel(), asyncio.Semaphore(AT_ONCE)

    async def one(environment: Environment) -> list[str]:
        async with slots:
            return await examine(environment, wheel, running)

    async with servers() as running:
        failed = [each for failures in await asyncio.gather(*map(one, chosen)) for each in failures]
    print(f"{len(chosen)} environments, {len(failed)} failures")
    if write and not failed:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(found, environments(found[0])))
        print(f"written: {PAGE.relative_to(ROOT)}")
    return failed


def main() -> int:
    """Read the arguments; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat")
    parser.add_argument("--constraints", action="store_true", help="renew the files of versions and check nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="environments whose version or name contains this")
    parser.add_argument("--write", action="store_true", help="write the page of the documentation if nothing fails")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write needs every environment: leave out --only")
    if options.constraints:
        asyncio.run(renew_constraints())
        return 0
    began = time.monotonic()
    failed = asyncio.run(examine_all(options.only, write=options.write))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in used)
    print(f"{time.monotonic() - began:.0f} s, of the processor {cpu:.0f} s", *failed, sep="\nfailed: ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
