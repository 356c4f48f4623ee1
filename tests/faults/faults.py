"""Faults that several scenarios have: each begins, and ends after what the scenario does meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.faults.proxy import Mode, Proxy
from tests.faults.stage import Stage

Fault = Callable[[Stage], AbstractAsyncContextManager[None]]
"""Begins a fault, and ends it. What follows its `yield` returns when the parts run again."""


@asynccontextmanager
async def relay_down(stage: Stage) -> AsyncGenerator[None]:
    stage.relay.kill()
    yield
    await stage.start_relay(stage.relay)


@asynccontextmanager
async def server_down(stage: Stage) -> AsyncGenerator[None]:
    stage.humans.process.kill()
    yield
    await stage.humans.start()


@asynccontextmanager
async def temporal_down(stage: Stage) -> AsyncGenerator[None]:
    stage.temporal.process.kill()
    yield
    await stage.temporal.start()


@asynccontextmanager
async def postgres_crashed(stage: Stage) -> AsyncGenerator[None]:
    await asyncio.to_thread(stage.postgres.crash)
    yield
    await asyncio.to_thread(stage.postgres.start_again)


def clock_off(seconds: int) -> Fault:
    """Set the wall clock of the relay forward, or back."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncGenerator[None]:
        stage.clock.write_text(str(seconds))
        yield
        stage.clock.write_text("0")

    return fault


def broken(connection: Callable[[Stage], Proxy], mode: Mode, *, only: bytes = b"") -> Fault:
    """Break a connection.

    Args:
        connection: Returns the proxy that carries it.
        mode: How it is broken.
        only: Break only connections whose first request begins like this.
    """

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncGenerator[None]:
        connection(stage).breaks(mode, only=only)
        yield
        connection(stage).heal()

    return fault
