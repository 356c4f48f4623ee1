"""Holds the leases of one relay for as long as its process lives.

Law: a delivery that takes long is not taken over. Waking a graph may take minutes, and a node that blocks the event
loop must not make another relay believe that this one has died: leases are renewed from a thread of their own.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store import Store, Wait

logger = safe_logger("awaithumans.relay")

RENEWALS = 3
"""So many times a lease is renewed before it would run out."""
RETRY_SECONDS = 0.5
"""After a renewal that failed: the database may be back before the lease has run out."""


class LeaseKeeper:
    """Renews what its owner has leased.

    Args:
        store: The waits.
        owner: Whose leases.
        seconds: How long a lease lasts.
    """

    def __init__(self, store: Store, owner: str, seconds: float) -> None:
        self._store = store
        self._owner = owner
        self._seconds = seconds
        self._held: set[tuple[str, str]] = set()
        self._stopped = threading.Event()

    @contextmanager
    def holding(self, wait: Wait) -> Generator[None]:
        """A delivery is under way. Without any the database is left alone."""
        self._held.add(_key(wait))
        try:
            yield
        finally:
            self._held.discard(_key(wait))

    def holds(self, wait: Wait) -> bool:
        """Whether its delivery is under way here."""
        return _key(wait) in self._held

    def held(self) -> set[tuple[str, str]]:
        """Task id and route's digest of all whose delivery is under way here."""
        return self._held.copy()

    @contextmanager
    def running(self) -> Generator[None]:
        """Renew while the block runs."""
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
                self._store.renew(self._owner, held, seconds=self._seconds)
            except Exception:
                logger.exception("could not renew the leases of this relay; trying again")
                pause = RETRY_SECONDS


def _key(wait: Wait) -> tuple[str, str]:
    return wait.task_id, wait.route.digest
