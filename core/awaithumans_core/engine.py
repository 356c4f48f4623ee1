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


@runtime_checkable
class SeesOrphans(Protocol):
    """What an engine may offer besides: it can tell that nobody waits for an answer any more.

    The relay asks on its schedule. A question whose last asker has gone is cancelled, so that nobody works for nothing.
    """

    async def orphaned(self, route: Route) -> str | None:
        """Why the asker will never take an answer, in words for an operator.

        None while it waits, when it has the answer, when it may not have come to its question yet, and when nobody can
        tell.
        """
        ...


@runtime_checkable
class SeesAnswers(Protocol):
    """Optional: the engine can find out cheaply that a caller does not need its answer a second time.

    A caller that restarts registers again and must be given an answer that was delivered before. The relay asks before
    it delivers such an answer again.
    """

    async def has_answer(self, route: Route) -> bool:
        """Whether the caller, to whom the answer was delivered before, still has it or can never take it.

        False when that is not known: then the answer is delivered again. Must not read more than a bounded amount.
        """
        ...


@runtime_checkable
class MarksTasks(Protocol):
    """What an engine may offer besides: its callers give `HumanTasks.open` another `asked_by` than the default.

    The relay cancels a task only if it was created for one of the callers that wait for it, which it sees by this mark.
    """

    def asked_by(self, route: Route) -> str:
        """The `asked_by` with which the caller of this route opens its questions. Default: the route's digest."""
        ...


@runtime_checkable
class Redrives(Protocol):
    """What an engine may offer besides: an operator's redrive does more than another delivery would.

    Some asker took the answer and then failed, and whatever it did may not be done twice: a delivery leaves it as it
    is. A redrive is its owner's word that it is mended and may run on.
    """

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        """Deliver, and run an asker on that has failed with the answer in hand.

        Returns and raises as `deliver` does. It, too, may come twice, when the relay dies before it can write down how
        it went.
        """
        ...


@runtime_checkable
class Reachable(Protocol):
    """What an engine may offer besides: it can be asked whether its far end is there, without waking anybody.

    `doctor` asks, and a relay does at its start, when a delivery has failed, and every few seconds until it answers.
    """

    async def check(self) -> None:
        """Return when the far end answers; raise what keeps it from it."""
        ...


@runtime_checkable
class Remarks(Protocol):
    """What an engine may offer besides: `doctor` prints a remark about how its far end is set up."""

    async def remark(self) -> str:
        """One line. Raise SettingsError if a setting of the far end is wrong."""
        ...


@runtime_checkable
class Adopts(Protocol):
    """Optional: the engine opens tasks for questions that its callers have stored and could not ask.

    The relay calls it at its start and then on a schedule.
    """

    async def adopt(self) -> int:
        """Ask what the latest stored questions without a task ask. Returns how many were asked.

        Repeating it, at the same time as well, asks each question once. Reads and asks a bounded number. What could not
        be asked is logged, and asked the next time.

        Raises:
            Exception: nothing could be read.
        """
        ...


@runtime_checkable
class ChecksThreads(Protocol):
    """Optional: the engine can read one of its threads as a delivery would, without waking it; `doctor --thread`."""

    async def check_thread(self, route: Route) -> str:
        """What was found, in words for an operator.

        Args:
            route: Of a question of the thread. Without one, its key is empty and its target has only `thread_id`.

        Raises:
            TargetNotReady: the thread is not there, or the relay cannot read it.
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


class TargetBusy(TargetNotReady):
    """Not yet, and the asker is there: it comes to this question once it has finished with something else.

    Unlike a target that does not know of the question, it is waited for as long as people may take.
    """

    code = "TARGET_BUSY"


class RelayNotReady(TargetBusy):
    """Not yet: the relay lacks a setting without which it must not deliver, such as the codec that encrypts answers.

    The target is waited for as long as people may take, until the relay has the setting.
    """

    code = "RELAY_NOT_READY"
    retry_after = 30.0
