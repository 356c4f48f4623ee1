"""Whether the awaithumans server can be read at this moment, and how often to try when it cannot.

An outage, and a token that is not accepted, are said once, loudly, and not for every task; so is their end.
"""

from awaithumans_core.errors import AwaitHumansError, RequestRefusedError
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.relay")

AWAY_AFTER = 4
"""So many looks in a row that failed: it is not about one task any more."""
BACKOFF = Backoff(first=1.0, most=15.0)


class Outage:
    """What the last looks have shown."""

    def __init__(self) -> None:
        self._failures = 0
        self._pauses = 0

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
        if self.away:
            logger.warning("sweep: the awaithumans server answers again; what was missed is looked at now")
        self._failures = self._pauses = 0

    def failed(self, trouble: AwaitHumansError) -> None:
        """A look did not come about."""
        self._failures += 1
        if self._failures == 1:
            logger.warning("sweep: %s", trouble)
        elif self._failures == AWAY_AFTER:
            logger.error("sweep: %s", _told(trouble))


def _told(trouble: AwaitHumansError) -> str:
    if isinstance(trouble, RequestRefusedError):
        return (
            f"the awaithumans server refuses this relay's token: {trouble}. Waits are kept, callbacks are taken, and "
            "answers that are not called back are not found until it is accepted again. If it was replaced, set "
            "AWAITHUMANS_ADMIN_API_TOKEN to the new one and restart the relay"
        )
    return f"the awaithumans server cannot be read; waits are kept, and it is tried until it answers. {trouble}"
