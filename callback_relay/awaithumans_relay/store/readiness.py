"""Whether a callback could be stored at this moment, for `/readyz`.

Law: 503 whenever a callback could not be stored. A probe that changes no row succeeds on a full disk, so this one
writes a row to the waits table and deletes it in the same transaction. A probe runs at most once every few seconds,
however often `/readyz` is read. A failure to store an answer takes effect immediately and lasts until a write succeeds.
"""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager

from sqlalchemy.exc import DataError, SQLAlchemyError

PROBE_ENGINE = "doctor"
"""The engine name in the routes of probes. No other engine may use it."""
PROBE_EVERY_SECONDS = 5.0
"""Minimum seconds between two probes."""
PROBE_SECONDS = 3.0
"""How long `/readyz` waits for a probe that is under way."""


class Readiness:
    """The result of the most recent writes; usable from any event loop.

    Args:
        probe: Starts to write a probe row.
        steady: Monotonic clock, in seconds.
    """

    def __init__(self, probe: Callable[[], "Future[None]"], steady: Callable[[], float]) -> None:
        self._begin_probe = probe
        self._steady = steady
        self._probe: Future[None] | None = None
        self._probed_at = 0.0
        self._noted: Future[None] | None = None
        """The last probe whose result was taken into account."""
        self._failure: BaseException | None = None
        """The error of the last write, if no write has succeeded since."""
        self._failed_at = 0.0

    @contextmanager
    def storing(self) -> Generator[None]:
        """Record a failure to store the answer or registration that this block writes."""
        try:
            yield
        except DataError:  # only these values are refused; others can be stored
            raise
        except (SQLAlchemyError, OSError) as error:
            self._failure, self._failed_at = error, self._steady()
            raise

    def stored(self) -> None:
        """Record that a row was written."""
        self._failure = None

    async def check(self) -> None:
        """Return if a callback could be stored now; otherwise raise the error that prevents it."""
        probe = self._current_probe()
        if not probe.done():
            waiting = asyncio.wrap_future(probe)
            waiting.add_done_callback(_retrieve)
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.wait([waiting])  # other requests wait for the same probe, so it is not cancelled
        self._note(probe)
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _note(self, probe: "Future[None]") -> None:
        if self._noted is probe:
            return
        self._noted = probe
        if (error := probe.exception()) is not None:
            self._failure, self._failed_at = error, self._steady()
        elif self._failed_at < self._probed_at:
            self._failure = None

    def _current_probe(self) -> "Future[None]":
        """Return the last probe, or start a new one if that one is too old."""
        old = self._probe
        if old is not None and (not old.done() or self._steady() < self._probed_at + PROBE_EVERY_SECONDS):
            return old
        self._probed_at = self._steady()
        self._probe = new = self._begin_probe()
        return new


def _retrieve(waiting: "asyncio.Future[None]") -> None:
    """Retrieve the exception of a future, which asyncio would log otherwise. The probe itself reports it."""
    if not waiting.cancelled():
        waiting.exception()
