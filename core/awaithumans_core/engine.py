"""The interface of an engine, which is what can wake a caller.

Temporal and LangGraph are two engines. A third one is a single file that implements `Engine`. The other protocols in
this module are optional features of an engine.
"""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from awaithumans_core.declared_facts import declares_facts
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route


@runtime_checkable
class Engine(Protocol):
    """Wakes the caller that a route names."""

    @property
    def name(self) -> str:
        """The name of this engine in routes."""
        ...

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Deliver the outcome to the caller.

        A return means that the caller has the outcome, from this delivery or an earlier one. Delivery is at least once.
        A second delivery, one that is too early, and one to a target that has finished are normal cases, and each must
        be harmless.

        Raises:
            TargetGone: the caller will never take the outcome. The wait is parked with the reason.
            TargetNotReady: the caller cannot take the outcome yet. The relay tries again later.
            Exception: on any other exception, the relay tries again later, too.
        """
        ...


@runtime_checkable
class SeesOrphans(Protocol):
    """Optional: the engine can detect orphaned waits, whose caller no longer exists.

    The relay checks on its schedule. It cancels a question whose last caller no longer exists, so that no person works
    on it in vain.
    """

    async def orphaned(self, route: Route) -> str | None:
        """Return why the caller will never take an answer, in words for an operator.

        None while the caller waits, when it has the answer, when it may not have reached its question yet, and when the
        engine cannot know.
        """
        ...


@runtime_checkable
class SeesAnswers(Protocol):
    """Optional: the engine can find out cheaply that a caller does not need its answer a second time.

    A caller that restarts registers again and must receive an answer that was delivered before. The relay calls
    `has_answer` before it delivers such an answer again.
    """

    async def has_answer(self, route: Route) -> bool:
        """Whether the caller, to whom the answer was delivered before, still has it or can never take it.

        False when that is not known: then the answer is delivered again. An implementation must read only a bounded
        amount of data.
        """
        ...


@runtime_checkable
class MarksTasks(Protocol):
    """Optional: the callers of the engine pass `HumanTasks.open` an `asked_by` other than the default.

    The relay cancels a task only if it was created for one of the callers that wait for it, which it sees by this mark.
    """

    def asked_by(self, route: Route) -> str:
        """Return the `asked_by` with which this route's caller opens its questions. Default: the route's digest."""
        ...


@runtime_checkable
class Redrives(Protocol):
    """Optional: an operator's redrive does more than a repeated delivery would.

    A caller may have taken the answer and then failed. What it did must not be done twice, so a delivery leaves it as
    it is. With a redrive the operator confirms that the caller is fixed and may continue.
    """

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        """Deliver the outcome, and continue a caller that failed after it took the answer.

        It returns and raises as `deliver` does. It may also be called twice, if the relay dies before it has stored the
        result of the first call.
        """
        ...


@runtime_checkable
class Reachable(Protocol):
    """Optional: the engine can check whether its backend is reachable, without waking a caller.

    `doctor` calls it. A relay calls it at its start, and after a failed delivery every few seconds until the backend
    answers.
    """

    async def check(self) -> None:
        """Return if the backend answers; otherwise raise the error that prevents it."""
        ...


@runtime_checkable
class OpensResources(Protocol):
    """Optional: the engine needs resources, such as a checkpointer, that are open while the relay runs."""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Open the resources on the running event loop, and close them at the end of the block.

        The relay enters the block when it starts, before it delivers, and leaves it when it stops. If it raises, the
        relay does not start.

        Raises:
            SettingsError: a setting of the engine is wrong.
        """
        ...


@runtime_checkable
class Remarks(Protocol):
    """Optional: the engine has a remark about the setup of its backend, which `doctor` prints."""

    async def remark(self) -> str:
        """Return the remark as one line. Raise SettingsError if a setting of the backend is wrong."""
        ...


@runtime_checkable
class Serves(Protocol):
    """Optional: the engine wakes only the callers of some namespaces or graphs, and can name these.

    `doctor` on a worker's machine compares them with those of the worker.
    """

    async def serves(self) -> Collection[str]:
        """Return the names. Raise any error if they are not known, for instance while the backend is unreachable."""
        ...


@runtime_checkable
class Adopts(Protocol):
    """Optional: the engine opens tasks for questions that its callers have stored and could not ask.

    The relay calls it at its start and then on a schedule.
    """

    async def adopt(self) -> int:
        """Open tasks for the latest stored questions that have none. Return how many were opened.

        Repeated and concurrent calls ask each question once. A call reads and asks a bounded number of questions. A
        question that could not be asked is logged, and the next call asks it.

        Raises:
            Exception: no stored question could be read.
        """
        ...


@runtime_checkable
class ChecksThreads(Protocol):
    """Optional: the engine can read one of its threads as a delivery would, without waking it; `doctor --thread`."""

    async def check_thread(self, route: Route) -> str:
        """Return what was found in the thread, in words for an operator.

        Args:
            route: The route of a question of the thread. If no question is given, the key of the route is empty and its
                target has only `thread_id`.

        Raises:
            TargetNotReady: the thread does not exist, or the relay cannot read it.
        """
        ...


class TargetGone(AwaitHumansError):
    """Terminal: the caller has finished, has moved on, or never existed. The wait is parked with the text as reason."""

    code = "TARGET_GONE"


@declares_facts
class TargetNotReady(AwaitHumansError):
    """Retryable: the caller has not reached the point where it can take the answer."""

    code = "TARGET_NOT_READY"
    retry_after: float = 0.0
    """Minimum number of seconds before the next attempt."""


class TargetBusy(TargetNotReady):
    """Retryable: the caller exists and is busy. It reaches this question once it has finished something else.

    Unlike for a target that does not know the question, the relay keeps trying for as long as people may take.
    """

    code = "TARGET_BUSY"


@declares_facts
class RelayNotReady(TargetBusy):
    """Retryable: the relay lacks a setting without which it must not deliver, such as the codec that encrypts answers.

    Until it has the setting, the relay keeps trying for as long as people may take.
    """

    code = "RELAY_NOT_READY"
    retry_after: float = 30.0
