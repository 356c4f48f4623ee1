"""The worker's side: the activities that speak HTTP. Settings stay here; no token or key enters a history."""

from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from awaithumans_adapters.temporal.names import CLOSE_WAIT, ENGINE, OPEN_WAIT
from awaithumans_core.errors import AwaitHumansError, RequestRefusedError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.settings import Settings

PATIENCE_SECONDS = 10.0
"""One attempt rides out a hiccup; longer outages are Temporal's to retry, where an operator sees them."""


class HumanTaskActivities:
    """The activities behind `await_human`. `HumanTasksPlugin` registers them; without it pass `.all()` to the worker.

    Args:
        settings: Default: read from the worker's environment when the first question is asked.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._human_tasks: HumanTasks | None = None

    def all(self) -> list[Callable[..., Any]]:
        """What a worker has to register."""
        return [self.open_wait, self.close_wait]

    @activity.defn(name=OPEN_WAIT)
    async def open_wait(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create the task and register the wait of the calling workflow. Repeating it is harmless."""
        info = activity.info()
        if info.workflow_id is None:
            raise ApplicationError("open_wait answers a workflow; it was called without one", non_retryable=True)
        # No run id: the answer goes to the run that is current when it comes.
        target = {"namespace": info.namespace, "workflow_id": info.workflow_id}
        route = Route(ENGINE, target, body["idempotency_key"])
        try:
            human_tasks = self._ready()
            outcome = await human_tasks.open(body, route)
        except AwaitHumansError as error:
            raise _failure(error) from error
        return _brief(outcome) | {"review_url": human_tasks.settings.review_url(outcome.task_id)}

    @activity.defn(name=CLOSE_WAIT)
    async def close_wait(self, task_id: str) -> dict[str, Any]:
        """Cancel the task unless it has ended, and say how it ended."""
        try:
            return _brief(await self._ready().close(task_id))
        except AwaitHumansError as error:
            raise _failure(error) from error

    def _ready(self) -> HumanTasks:
        if self._human_tasks is None:
            self._human_tasks = HumanTasks(self._settings, patience=PATIENCE_SECONDS)
        return self._human_tasks


def _brief(outcome: Outcome) -> dict[str, Any]:
    """What the workflow needs to know of it: everything once it has ended, before that only which task it is."""
    return outcome.value() if outcome.terminal else {"task_id": outcome.task_id, "status": outcome.status}


def _failure(error: AwaitHumansError) -> ApplicationError:
    """Refusals fail at once, with the server's words. Everything else is tried again.

    A worker that lacks a setting is mended by its operator, who sees the message in the Temporal UI; workflows wait.
    """
    return ApplicationError(str(error), type=type(error).__name__, non_retryable=isinstance(error, RequestRefusedError))
