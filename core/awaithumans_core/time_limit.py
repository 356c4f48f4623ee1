"""Calls that read files and sockets of this machine, with a time limit, also from inside of an event loop."""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

LIMIT_SECONDS = 3.0
"""Maximum seconds that a process waits for the servers and files of this machine.

A running server answers within milliseconds and a closed port refuses at once. Only a program that accepts the
connection and does not answer takes this long.
"""


def within_limit(ask: Callable[[], T], otherwise: T, seconds: float = LIMIT_SECONDS) -> T:
    """Return what this function returns, or the other value if it takes too long or no thread may be used.

    It runs in a thread of its own, which has no event loop. So it may read files and sockets where a caller in an event
    loop must not. LangGraph's server refuses such calls in its loop, and allows to wait for a thread. The time limit
    also ends a reply that arrives byte by byte.
    """
    results: list[T] = []
    thread = Thread(target=lambda: results.append(ask()), name="awaithumans-discovery", daemon=True)
    try:
        thread.start()
        thread.join(seconds)
    except Exception:  # no thread can be started, or a tool that detects blocking calls refuses to wait for one
        return otherwise
    return results[0] if results else otherwise
