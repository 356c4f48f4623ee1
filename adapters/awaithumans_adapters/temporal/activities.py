"""The worker's side: the activities that speak HTTP. Settings stay here; no token or key enters a history."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from temporalio import activity
from temporalio.exceptions import ApplicationError

from awaithumans_adapters.temporal.failures import failure
from awaithumans_adapters.temporal.limits import fitting, size_of
from awaithumans_adapters.temporal.names import (
    AWAIT_HUMAN,
    CLOSE_WAIT,
    ENGINE,
    LAST_LOOK,
    OPEN_WAIT,
    OWN_ACTIVITY,
    WITHDRAW,
)
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.settings import Settings

if TYPE_CHECKING:
    from awaithumans_core.human_tasks import HumanTasks

PATIENCE_SECONDS = 10.0
"""One attempt rides out a hiccup; longer outages are Temporal's to retry, where an operator sees them."""


class HumanTaskActivities:
    """The activities behind `await_human`, which `HumanTasksPlugin` registers.

    Args:
        settings: Default: read from the worker's environment when the first question is asked.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings
        self._human_tasks: HumanTasks | None = None

    def all(self) -> list[Callable[..., Any]]:
        """What a worker has to register."""
        return [self.open_wait, self.close_wait, self.last_look, self.await_human, self.withdraw]

    @activity.defn(name=OPEN_WAIT)
    async def open_wait(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create the task and register the wait of the calling workflow. Repeating it is harmless."""
        # No run id: the answer goes to the run that is current when it comes.
        route = Route(ENGINE, _caller(), body["idempotency_key"])
        try:
            human_tasks = self._ready()
            outcome = await human_tasks.open(body, route, **_memory())
        except AwaitHumansError as error:
            raise failure(error) from error
        if outcome.terminal:
            return _fitting(outcome)
        return {"task_id": outcome.task_id, "review_url": human_tasks.settings.review_url(outcome.task_id)}

    @activity.defn(name=CLOSE_WAIT)
    async def close_wait(self, task_id: str) -> dict[str, Any]:
        """Cancel the task unless it has ended, and say how it ended."""
        try:
            return _brief(await self._ready().close(task_id))
        except AwaitHumansError as error:
            raise failure(error) from error

    @activity.defn(name=LAST_LOOK)
    async def last_look(self, asked: dict[str, Any]) -> dict[str, Any]:
        """How the task stands at its deadline: `{"task_id", "timeout_seconds"}`; see `flow.last_look`."""
        try:
            return _fitting(await self._ready().last_look(asked["task_id"], asked["timeout_seconds"]))
        except AwaitHumansError as error:
            raise failure(error) from error

    @activity.defn(name=AWAIT_HUMAN)
    async def await_human(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask, and be completed with the outcome when a person has answered: `Outcome.value()`, for `settle`.

        `await_human(..., via="activity")` in a workflow uses it; it may also be called by itself. Set a start-to-close
        timeout: it is how often an answer that was not called back is looked for. Set no heartbeat timeout. Called by
        itself, its question outlives a workflow that is cancelled: an activity that is not running cannot hear of it.

        Args:
            body: `HumanTask.body()`, or the JSON body of `POST /api/tasks`. Without `idempotency_key` the activity's
                own run and id name the question.

        Example:
            question = HumanTask(task="Approve?", response_schema=Decision, idempotency_key=f"approve:{order}")
            outcome = await workflow.execute_activity_method(
                HumanTaskActivities.await_human, question.body(), start_to_close_timeout=timedelta(hours=1)
            )
            decision = settle(Outcome.model_validate(outcome), Decision)
        """
        info = activity.info()
        target = _caller() | {"activity_id": info.activity_id}
        if not info.activity_id.startswith(OWN_ACTIVITY):  # an id like "7" names something else in another run
            target["run_id"] = str(info.workflow_run_id)
        body = {"idempotency_key": ":".join((ENGINE, *target.values()))} | body
        waited = info.current_attempt_scheduled_time - info.scheduled_time
        given = timedelta(seconds=body["timeout_seconds"])
        try:
            human_tasks = self._ready()
            route = Route(ENGINE, target, body["idempotency_key"])
            outcome = await human_tasks.open(body, route, **_memory())
            if not outcome.terminal and waited >= given + timedelta(seconds=TIMEOUT_GRACE_SECONDS):
                outcome = await human_tasks.last_look(outcome.task_id, given.total_seconds())
        except AwaitHumansError as error:
            tried_for = info.start_to_close_timeout
            raise failure(error, asked_before=tried_for is not None and waited >= tried_for) from error
        if not outcome.terminal:
            activity.raise_complete_async()
        return _fitting(outcome)

    @activity.defn(name=WITHDRAW)
    async def withdraw(self, key: str) -> dict[str, Any]:
        """Cancel a question by its key. One that was never asked is asked for that, of nobody."""
        try:
            return _brief(await self._ready().withdraw(key))
        except AwaitHumansError as error:
            raise failure(error) from error

    def _ready(self) -> "HumanTasks":
        if self._human_tasks is None:
            # Here, so that a workflow file that names the plugin brings no HTTP client into its sandbox.
            from awaithumans_core.human_tasks import HumanTasks

            self._human_tasks = HumanTasks(self.settings, patience=PATIENCE_SECONDS)
        return self._human_tasks


def _caller() -> dict[str, str]:
    """The workflow that asks."""
    info = activity.info()
    if info.workflow_id is None:
        raise ApplicationError("this activity answers a workflow; it was called without one", non_retryable=True)
    return {"namespace": str(info.namespace), "workflow_id": info.workflow_id}


class _Memory(TypedDict):
    known: str | None
    on_created: Callable[[Outcome], None]
    may_repeat: bool


def _memory() -> _Memory:
    """What attempts know of the task of an earlier one, which is not created again, even if it was deleted meanwhile.

    Temporal hands the last heartbeat on to the next attempt, on whichever worker. The relay is asked when there is
    none: a worker may have died before it was sent.
    """
    info = activity.info()
    known = next((task_id for task_id in info.heartbeat_details if isinstance(task_id, str)), None)
    if known is not None:
        activity.heartbeat(known)
    return {
        "known": known,
        "on_created": lambda created: activity.heartbeat(created.task_id),
        "may_repeat": info.attempt > 1,
    }


def _fitting(outcome: Outcome) -> dict[str, Any]:
    """What of it fits into a history."""
    return fitting(outcome, size_of(activity.payload_converter().to_payloads([outcome.value()]))).value()


def _brief(outcome: Outcome) -> dict[str, Any]:
    """All that the workflow makes of a task it has given up."""
    return {"task_id": outcome.task_id, "status": outcome.status}
