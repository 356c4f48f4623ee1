"""Whether a callback could be stored at this moment, for `/readyz`.

Law: 503 whenever a callback could not be stored. A probe that changes no row succeeds on a full disk, so this one
writes a row to the waits table and deletes it in the same transaction. It is written at most every few seconds, however
often `/readyz` is read. An answer that could not be stored counts at once, until a write succeeds.
"""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager

from sqlalchemy.exc import DataError, SQLAlchemyError

PROBE_ENGINE = "doctor"
"""The engine name in routes of probes; no other engine may have it."""
PROBE_EVERY_SECONDS = 5.0
"""At most, between two probes."""
PROBE_SECONDS = 3.0
"""How long `/readyz` waits for a probe that is under way."""


class Readiness:
    """What the last writes have shown; for any event loop.

    Args:
        probe: Begins to write a row.
        steady: Seconds that only grow.
    """

    def __init__(self, probe: Callable[[], "Future[None]"], steady: Callable[[], float]) -> None:
        self._begin_probe = probe
        self._steady = steady
        self._probe: Future[None] | None = None
        self._probed_at = 0.0
        self._noted: Future[None] | None = None
        """The last probe whose end was taken into account."""
        self._failure: BaseException | None = None
        """Why nothing could be stored, when nothing was since."""
        self._failed_at = 0.0

    @contextmanager
    def storing(self) -> Generator[None]:
        """An answer or a registration is stored in this block; note it if that fails."""
        try:
            yield
        except DataError:  # its values are refused, others are not
            raise
        except (SQLAlchemyError, OSError) as error:
            self._failure, self._failed_at = error, self._steady()
            raise

    def stored(self) -> None:
        """A row was written."""
        self._failure = None

    async def check(self) -> None:
        """Return if a callback could be stored now; raise what went wrong otherwise."""
        probe = self._current_probe()
        if not probe.done():
            waiting = asyncio.wrap_future(probe)
            waiting.add_done_callback(_retrieve)
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.wait([waiting])  # others wait for it, too, so it is not cancelled
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
        """The last probe, or a new one if that is old."""
        old = self._probe
        if old is not None and (not old.done() or self._steady() < self._probed_at + PROBE_EVERY_SECONDS):
            return old
        self._probed_at = self._steady()
        self._probe = new = self._begin_probe()
        return new


def _retrieve(waiting: "asyncio.Future[None]") -> None:
    """Take the exception of a future, which asyncio would log otherwise. The probe itself reports it."""
    if not waiting.cancelled():
        waiting.exception()
