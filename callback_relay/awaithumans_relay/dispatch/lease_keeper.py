"""Renews the leases of one relay for as long as its process lives.

Law: a long delivery is not taken over. Waking a graph may take minutes, and a node that blocks the event loop must not
make another relay believe that this one has died. So leases are renewed from a separate thread.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.leases import Leases

logger = safe_logger("awaithumans.relay")

RENEWALS = 3
"""How many times a lease is renewed within its duration."""
RETRY_SECONDS = 0.5
"""Seconds until a failed renewal is retried. The database may be reachable again before the lease expires."""


class LeaseKeeper:
    """Renews the leases of one owner while their deliveries are under way.

    Args:
        leases: The leases of answered waits.
        owner: The holder of the leases.
        seconds: How long a lease lasts.
    """

    def __init__(self, leases: Leases, owner: str, seconds: float) -> None:
        self._leases = leases
        self._owner = owner
        self._seconds = seconds
        self._held: set[tuple[str, str]] = set()
        self._stopped = threading.Event()

    @contextmanager
    def holding(self, wait: Wait) -> Generator[None]:
        """Keep the lease of this wait renewed during its delivery. Without deliveries the database is not accessed."""
        self._held.add(_key(wait))
        try:
            yield
        finally:
            self._held.discard(_key(wait))

    def holds(self, wait: Wait) -> bool:
        """Whether the delivery of this wait is under way here."""
        return _key(wait) in self._held

    def held(self) -> set[tuple[str, str]]:
        """Return task id and route digest of all waits whose delivery is under way here."""
        return self._held.copy()

    @contextmanager
    def running(self) -> Generator[None]:
        """Renew leases while the block runs."""
        self._stopped.clear()
        thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        pause = self._seconds / RENEWALS
        while not self._stopped.wait(pause):
            pause = self._seconds / RENEWALS
            if not (held := self.held()):
                continue
            try:
                self._leases.renew(self._owner, held, seconds=self._seconds)
            except Exception:
                logger.exception("lease renewal failed; trying again")
                pause = RETRY_SECONDS


def _key(wait: Wait) -> tuple[str, str]:
    return wait.task_id, wait.route.digest
