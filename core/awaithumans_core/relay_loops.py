"""The event loops on which relays of this process run.

A caller that asks a question needs the relay to register it. If the relay runs in the caller's own process, a sync call
on the relay's event loop blocks the relay, so its request is never answered. Such a call is refused.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from awaithumans_core.errors import SettingsError

_loops: list[asyncio.AbstractEventLoop] = []


@contextmanager
def relay_runs_here() -> Generator[None]:
    """Record that a relay runs on the running event loop, for the duration of the block."""
    loop = asyncio.get_running_loop()
    _loops.append(loop)
    try:
        yield
    finally:
        _loops.remove(loop)


def refuse_to_block() -> None:
    """Raise if a sync call in this thread would block the event loop of a relay.

    Raises:
        SettingsError: it would.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no event loop runs in this thread
        return
    if loop in _loops:
        raise SettingsError(
            "a question is asked by a sync call on the event loop of the relay in this process, which would block the "
            "relay: it could not register the question. Run the graph with `await graph.ainvoke(...)`, or call "
            "graph.invoke in another thread: in a `def` endpoint of FastAPI, or with asyncio.to_thread"
        )
