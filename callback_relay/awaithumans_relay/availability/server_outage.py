"""Whether the awaithumans server can be read at this moment, and how often to try when it cannot.

Only a lost connection, 5xx, 429 (408 and 425 are like it), 401 and an environment in which no request can be sent show
that the server cannot be read. Any other odd reply is one task's: that task is read again later, and the others go on.

An outage, and a token that is not accepted, are said once, loudly, and not for every task; so is their end.
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
"""So many looks in a row that failed: it is not about one task any more."""
BACKOFF = Backoff(first=1.0, most=15.0)


def is_outage(trouble: AwaitHumansError) -> bool:
    """Whether this shows that the server cannot be read. False: it is about one task."""
    unreachable = isinstance(trouble, ServerUnreachableError) and not isinstance(trouble, UnexpectedReplyError)
    return unreachable or isinstance(trouble, AuthenticationError | SettingsError)


class Outage:
    """What the last looks have shown."""

    def __init__(self) -> None:
        self._failures = 0
        self._pauses = 0
        self._odd: set[str] = set()
        """Tasks with odd replies, since one was read last."""

    @property
    def away(self) -> bool:
        """Whether only a probe now and then is worth sending."""
        return self._failures >= AWAY_AFTER

    def pause(self) -> float:
        """Seconds until the next probe; longer with every one that fails."""
        self._pauses += 1
        return BACKOFF.delay(self._pauses)

    def answered(self) -> None:
        """The server has said how a task stands, or that there is none."""
        if self.away or self._all_odd:
            logger.warning("sweep: the awaithumans server answers again; what was missed is looked at now")
        self._failures = self._pauses = 0
        self._odd.clear()

    def failed(self, trouble: AwaitHumansError) -> None:
        """A look did not come about."""
        self._failures += 1
        if self._failures == 1:
            logger.warning("sweep: %s", trouble)
        elif self._failures == AWAY_AFTER:
            logger.error("sweep: %s", _told(trouble))

    @property
    def _all_odd(self) -> bool:
        return len(self._odd) >= AWAY_AFTER

    def odd(self, task_id: str, trouble: AwaitHumansError) -> bool:
        """A reply that is no outage and no usable reading of this task. Returns whether it is so for every task.

        Then the server is reported as failing, and its tasks are read as before, each at its own growing intervals.
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
