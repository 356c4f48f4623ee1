"""The clock by which leases are compared between relays, and which leases are respected at a moment."""

import math
from collections.abc import Callable

from sqlalchemy import Connection, Float, cast, extract, func, select

from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store.schedule import MAX_LEASE_SECONDS

_DATABASE_TIME = select(cast(extract("epoch", func.clock_timestamp()), Float))


class LeaseClock:
    """Epoch seconds of a clock that all relays of a database share, as far as there is one.

    Args:
        clock: Epoch seconds of this machine.
        steps: The steps of that clock. None: it makes none.
        of_database: Whether the database's clock is used, which is not set when a relay starts.
    """

    def __init__(self, clock: Callable[[], float], steps: ClockSteps | None, *, of_database: bool) -> None:
        self._clock = clock
        self._steps = steps
        self._of_database = of_database

    def now(self, db: Connection) -> float:
        """Return the time. A clock that is ahead would see leases as expired."""
        now: float = db.execute(_DATABASE_TIME).scalar_one() if self._of_database else self._clock()
        return now

    def respected(self, at: float, seconds: float, grace: float) -> dict[str, float]:
        """Return the times, `run_out` and `too_long`, between which a lease must end to be respected now.

        A lease that is longer than any relay takes was set by a clock that was ahead. Just after a step of the clock
        every lease is respected, so that live relays renew first. While a relay starts on SQLite as well, because this
        machine's clock may have been set just before.

        Args:
            at: The time now.
            seconds: How long leases last.
            grace: How long ago a lease must have expired.
        """
        normal = {"run_out": at - grace, "too_long": at + max(seconds, MAX_LEASE_SECONDS)}
        if (steps := self._steps) is None:
            return normal
        steps.note(at)
        starting = steps.noted_for < seconds
        if steps.quiet_for < seconds or (starting and not self._of_database):
            return {"run_out": -math.inf, "too_long": math.inf}
        return normal | {"too_long": math.inf} if starting else normal
