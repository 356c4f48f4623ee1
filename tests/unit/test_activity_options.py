"""`ActivityOptions`: what may be chosen, and what it is combined with."""

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


def test_options_of_a_question_replace_those_of_the_worker_one_by_one() -> None:
    """A field that is left out keeps the worker's value."""
    worker = ActivityOptions(task_queue="people", priority=Priority(priority_key=2))
    combined = ActivityOptions(task_queue="finance").over(worker)
    assert combined == ActivityOptions(task_queue="finance", priority=Priority(priority_key=2))


def test_defaults_are_those_of_the_workflow() -> None:
    """Without options an activity runs on the workflow's own queue, for a minute at most, and is retried for ever."""
    config = ActivityOptions().of_call()
    assert config["task_queue"] is None
    assert config["start_to_close_timeout"] == timedelta(seconds=60)
    assert config["retry_policy"] == RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)
    )


def test_a_plugin_without_activities_needs_their_task_queue() -> None:
    """On the workflow's own queue no worker would run them."""
    with pytest.raises(SettingsError, match="task_queue="):
        HumanTasksWorkflowPlugin(activities=ActivityOptions(priority=Priority(priority_key=1)))


def test_another_object_in_place_of_options() -> None:
    """Temporal's own `ActivityConfig` has fields that could end a wait."""
    config: Any = {"task_queue": "people"}
    with pytest.raises(SettingsError, match="give ActivityOptions"):
        HumanTasksPlugin(activities=config)
