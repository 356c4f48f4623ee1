"""Whether the awaithumans server can be read at this moment, and how often to try when it cannot.

Only these show that the server cannot be read: a lost connection, 5xx, 429 (and 408 and 425, which are treated alike),
401, and an environment in which no request can be sent. Any other odd reply concerns one task. That task is read again
later, and the others continue.

An outage or a refused token is logged once, at a high level, and not for every task. So is its end.
"""

from awaithumans_core.errors import (
    AuthenticationError,
    AwaitHumansError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    UnexpectedReplyError,
)
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.relay")

AWAY_AFTER = 4
"""Number of consecutive failed checks after which the problem no longer concerns one task."""
BACKOFF = Backoff(first=1.0, most=15.0)


def is_outage(trouble: AwaitHumansError) -> bool:
    """Whether this error shows that the server cannot be read. False: it concerns one task."""
    unreachable = isinstance(trouble, ServerUnreachableError) and not isinstance(trouble, UnexpectedReplyError)
    return unreachable or isinstance(trouble, AuthenticationError | SettingsError)


class Outage:
    """Tracks what the last checks have shown about the server."""

    def __init__(self) -> None:
        self._failures = 0
        self._pauses = 0
        self._odd: set[str] = set()
        """Tasks with odd replies since a task was last read."""

    @property
    def away(self) -> bool:
        """Whether the server counts as unreachable, so that only occasional probes are sent."""
        return self._failures >= AWAY_AFTER

    def pause(self) -> float:
        """Return the seconds until the next probe. They grow with every probe that fails."""
        self._pauses += 1
        return BACKOFF.delay(self._pauses)

    def answered(self) -> None:
        """Note that the server has reported the state of a task, or that the task does not exist."""
        if self.away or self._all_odd:
            logger.warning("sweep: the awaithumans server answers again; what was missed is looked at now")
        self._failures = self._pauses = 0
        self._odd.clear()

    def failed(self, trouble: AwaitHumansError) -> None:
        """Note that a check failed because the server cannot be read."""
        self._failures += 1
        if self._failures == 1:
            logger.warning("sweep: %s", trouble)
        elif self._failures == AWAY_AFTER:
            logger.error("sweep: %s", _told(trouble))

    @property
    def _all_odd(self) -> bool:
        return len(self._odd) >= AWAY_AFTER

    def odd(self, task_id: str, trouble: AwaitHumansError) -> bool:
        """Note a reply that is neither an outage nor a usable reading of this task. Returns whether every task has one.

        In that case the server is reported as failing, and its tasks are read as before, each at its own growing
        intervals.
        """
        if not self._all_odd:
            self._odd.add(task_id)
            if self._all_odd:
                logger.error("sweep: %s", _told(trouble))
        return self._all_odd


def _told(trouble: AwaitHumansError) -> str:
    if isinstance(trouble, RequestRefusedError) and trouble.from_api:
        return (
            f"the awaithumans server refuses this relay's token: {trouble}. Waits are kept, callbacks are taken, and "
            "answers that are not called back are not found until it is accepted again. If it was replaced, set "
            "AWAITHUMANS_ADMIN_API_TOKEN to the new one and restart the relay"
        )
    return f"the awaithumans server cannot be read; waits are kept, and it is tried until it answers. {trouble}"
