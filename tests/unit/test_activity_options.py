"""`ActivityOptions`: the options that may be chosen, and how they are combined."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.common import Priority, RetryPolicy

from awaithumans_adapters.temporal import ActivityOptions, HumanTasksPlugin, HumanTasksWorkflowPlugin
from awaithumans_core import SettingsError


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"task_queue": " "}, "task_queue"),
        ({"start_to_close_timeout": timedelta(seconds=5)}, "start_to_close_timeout is 5 s"),
        ({"retry_policy": RetryPolicy(maximum_attempts=3)}, "maximum_attempts=3"),
        ({"retry_policy": RetryPolicy(non_retryable_error_types=["ServerUnreachableError"])}, "ServerUnreachableError"),
    ],
)
def test_options_that_could_lose_an_answer_are_refused(options: dict[str, Any], named: str) -> None:
    """The error names the option and its value."""
    with pytest.raises(SettingsError, match=named):
        ActivityOptions(**options)


def test_options_of_a_question_override_those_of_the_worker() -> None:
    """A field that is left out keeps the worker's value."""
    worker = ActivityOptions(task_queue="people", priority=Priority(priority_key=2))
    combined = ActivityOptions(task_queue="finance").over(worker)
    assert combined == ActivityOptions(task_queue="finance", priority=Priority(priority_key=2))


def test_default_options() -> None:
    """By default an activity runs on the workflow's task queue, for a minute at most, and is retried without limit."""
    config = ActivityOptions().of_call()
    assert config["task_queue"] is None
    assert config["start_to_close_timeout"] == timedelta(seconds=60)
    assert config["retry_policy"] == RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)
    )


def test_plugin_without_activities_needs_a_task_queue() -> None:
    """No worker would run the activities on the workflow's own queue."""
    with pytest.raises(SettingsError, match="task_queue="):
        HumanTasksWorkflowPlugin(activities=ActivityOptions(priority=Priority(priority_key=1)))


def test_other_object_as_options_is_refused() -> None:
    """Temporal's own `ActivityConfig` has fields that could end a wait."""
    config: Any = {"task_queue": "people"}
    with pytest.raises(SettingsError, match="give ActivityOptions"):
        HumanTasksPlugin(activities=config)
