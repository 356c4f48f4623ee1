"""The seam for whatever can be woken.

Temporal and LangGraph are two of them; a third is one file that implements this.
"""

from typing import Protocol, runtime_checkable

from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route


@runtime_checkable
class Engine(Protocol):
    """Wakes the asker a route names."""

    @property
    def name(self) -> str:
        """What routes call this engine."""
        ...

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Give the outcome to the asker.

        Returning means the asker has it, now or already. Delivery is at least once: twice, too early, and to a target
        that has finished are normal cases, and each must be harmless.

        Raises:
            TargetGone: the asker will never take it; the wait is parked with the reason.
            TargetNotReady: the asker is not there yet; try again later.
            Exception: anything else means try again later, too.
        """
        ...


class TargetGone(AwaitHumansError):
    """Terminal: the asker has finished, moved on, or never was. The text becomes the reason of the parked wait."""

    code = "TARGET_GONE"


class TargetNotReady(AwaitHumansError):
    """Not yet: the asker has not reached the point where it can take the answer."""

    code = "TARGET_NOT_READY"
    retry_after: float = 0.0
    """Seconds to wait at least before the next try."""
