"""Where and how the activities of this package run: task queue, timeout, retries, priority.

Law: these options decide when and where a question is asked, never how it ends. They are a worker's configuration and
not part of a history. A replay compares the types and ids of activities, so they may be changed while people are asked.
"""

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TypedDict

from temporalio.common import Priority, RetryPolicy

from awaithumans_core.errors import SettingsError

ACTIVITY_TIMEOUT = timedelta(seconds=60)
"""Default timeout of one attempt, which makes a few short HTTP calls."""
MIN_ACTIVITY_TIMEOUT = timedelta(seconds=15)
"""Minimum timeout of one attempt, which retries its HTTP calls for ten seconds."""
RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))


class OfWaiting(TypedDict):
    """Arguments of `workflow.start_activity` that are set for every activity."""

    task_queue: str | None
    retry_policy: RetryPolicy
    priority: Priority


class OfCall(OfWaiting):
    """Arguments of `workflow.start_activity` for an activity that makes a few HTTP calls."""

    start_to_close_timeout: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityOptions:
    """How the activities behind `await_human` are scheduled. The names are those of `workflow.ActivityConfig`.

    Pass it to `HumanTasksPlugin` for all questions of a worker, or to `await_human` for one question. A field that is
    None has the plugin's value, or else the default. Options may be changed at any time, and histories still replay. An
    activity that is already scheduled stays on its task queue, so keep a worker on the old one until it has ended.

    Other fields of `ActivityConfig` are left out, because they could end a wait although a person still answers.

    Raises:
        SettingsError: a value could lose an answer, or Temporal refuses it.

    Example:
        HumanTasksPlugin(activities=ActivityOptions(task_queue="people", priority=Priority(priority_key=1)))
    """

    task_queue: str | None = None
    """Task queue of the workers that run the activities. Default: the workflow's own."""
    start_to_close_timeout: timedelta | None = None
    """Timeout of one attempt to open, check or close a question, at least 15 s. Default: 60 s.

    In activity mode the activity that waits has the interval of `recheck` instead.
    """
    retry_policy: RetryPolicy | None = None
    """Intervals between attempts while a server is unreachable. Default: 1 s, doubled up to 30 s.

    The number of attempts is not limited and no error type is excluded: a question ends with its own timeout.
    """
    priority: Priority | None = None
    """Priority and fairness of the activities in their task queue. Default: those of the workflow."""

    def __post_init__(self) -> None:
        if self.task_queue is not None and not self.task_queue.strip():
            raise SettingsError(f"task_queue is {self.task_queue!r}: give the name of a task queue, or leave it out")
        timeout, retry = self.start_to_close_timeout, self.retry_policy
        if timeout is not None and timeout < MIN_ACTIVITY_TIMEOUT:
            raise SettingsError(
                f"start_to_close_timeout is {timeout.total_seconds():g} s, and one attempt may take longer: give at "
                f"least {MIN_ACTIVITY_TIMEOUT.total_seconds():g} s"
            )
        if retry is not None and (retry.maximum_attempts or retry.non_retryable_error_types):
            raise SettingsError(
                f"retry_policy has maximum_attempts={retry.maximum_attempts} and "
                f"non_retryable_error_types={retry.non_retryable_error_types}: leave both out, since a wait that ends "
                "with an attempt would lose the answer of the person. Limit a question with timeout_seconds"
            )

    def over(self, default: "ActivityOptions") -> "ActivityOptions":
        """Return these options, with the values of `default` where a field is None."""
        names = [field.name for field in fields(self)]
        return replace(default, **{name: value for name in names if (value := getattr(self, name)) is not None})

    def of_waiting(self) -> OfWaiting:
        """Return the arguments for the activity that waits for the answer, except its start-to-close timeout.

        That timeout is the interval of re-checks.
        """
        return OfWaiting(
            task_queue=self.task_queue,
            retry_policy=self.retry_policy or RETRY,
            priority=self.priority or Priority.default,
        )

    def of_call(self) -> OfCall:
        """Return the arguments for the activities that make a few HTTP calls."""
        return OfCall(**self.of_waiting(), start_to_close_timeout=self.start_to_close_timeout or ACTIVITY_TIMEOUT)


def chosen(given: ActivityOptions | None) -> ActivityOptions:
    """Return the options that a caller has passed, or the defaults for None.

    Raises:
        SettingsError: the value is of another type, for instance a mapping.
    """
    if not isinstance(given, ActivityOptions | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SettingsError(f"activities={given!r}: give ActivityOptions(...) of awaithumans_adapters.temporal")
    return given or ActivityOptions()
