"""HTTP clients that belong to one process and to one event loop.

Law: a connection outlives neither its process nor its event loop. A forked child inherits its parent's sockets. Two
processes that use one connection receive each other's replies, and closing it in one of them closes it for both. So a
child opens connections of its own and leaves the inherited ones untouched: it does not use them, close them or wait
for a lock that another thread of the parent held when it forked. Nothing here takes a lock.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from awaithumans_core.errors import SettingsError

V = TypeVar("V")


class Closable(Protocol):
    """What `PerLoop` keeps: anything that is closed with `aclose`."""

    async def aclose(self) -> None:
        """Close the client."""
        ...


C = TypeVar("C", bound=Closable)

_forks = 0
_inherited: list[object] = []
"""The parent's values. They stay referenced, because collecting them as garbage could close or wake what is shared."""


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)


def generation() -> int:
    """Return the number of forks from the first process to this one, which differs between a parent and its child.

    Unlike a process id it cannot be used again by a descendant.
    """
    return _forks


class PerProcess(Generic[V]):
    """A value that each process creates at its first use. Safe to share between threads.

    Args:
        make: Makes the value. Two threads may both call it; the value of the slower one is dropped.
    """

    def __init__(self, make: Callable[[], V]) -> None:
        self._make = make
        self._made: dict[int, V] = {}

    def get(self) -> V:
        """Return the value of this process."""
        here = generation()
        if (made := self._made.get(here)) is None:
            _inherited.extend(self._made.pop(other) for other in list(self._made) if other != here)
            made = self._made.setdefault(here, self._make())
        return made

    def pop(self) -> V | None:
        """The value of this process, if there is one; the next `get` makes another."""
        return self._made.pop(generation(), None)


class PerLoop(Generic[C]):
    """A client that each event loop of each process creates. It is closed when its loop ends, at the latest.

    Args:
        make: Makes the client, inside the event loop that will use it.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._clients: PerProcess[_Clients[C]] = PerProcess(dict)

    async def get(self) -> C:
        """Return the client of the running event loop.

        Raises:
            SettingsError: no asyncio event loop is running here.
        """
        clients, loop = self._clients.get(), running_loop()
        if loop not in clients:
            for ended in [other for other in list(clients) if other.is_closed()]:  # closed without `asyncio.run`
                clients.pop(ended, None)
            client = self._make()
            closing = _closed_with_its_loop(clients, loop, client)
            await anext(closing)
            clients[loop] = (client, closing)
        return clients[loop][0]

    async def aclose(self) -> None:
        """Close the client of the running event loop. Those of other loops are closed when these end."""
        if (kept := self._clients.get().pop(running_loop(), None)) is not None:
            client, closing = kept
            await client.aclose()
            with suppress(RuntimeError):  # the loop is ending and closes it at this moment
                await closing.aclose()


_Clients = dict[asyncio.AbstractEventLoop, tuple[C, AsyncGenerator[None]]]


async def _closed_with_its_loop(
    clients: _Clients[C], loop: asyncio.AbstractEventLoop, client: C
) -> AsyncGenerator[None]:
    """Close the client when the loop ends: a loop closes the async generators that were started in it."""
    try:
        yield
    finally:
        clients.pop(loop, None)
        await client.aclose()


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        SettingsError: no asyncio event loop is running here.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise SettingsError(
            "no asyncio event loop is running here: the async client needs one (asyncio.run). Without one, or under "
            "trio, use the sync client: SyncTaskClient, await_human_sync"
        ) from None
