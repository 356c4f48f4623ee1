"""The one object a Temporal user adds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from temporalio import activity
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from awaithumans_adapters.temporal.activities import HumanTaskActivities
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.settings import Settings

PASSED_THROUGH = ("awaithumans_core", "awaithumans_adapters")


class HumanTasksPlugin(SimplePlugin):
    """Everything `await_human` needs, in one line on the client (its workers inherit it) or on a worker.

        client = await Client.connect("localhost:7233", plugins=[HumanTasksPlugin()])

    It registers the activities, lets workflows use pydantic models (a payload converter you have set stays), loads this
    package once instead of in every sandbox, and makes the errors of this package fail a workflow instead of suspending
    it.

    Args:
        settings: Default: read from the worker's environment when the first question is asked.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        activities = HumanTaskActivities(settings)

        def registered(given: Sequence[Callable[..., Any]] | None) -> Sequence[Callable[..., Any]]:
            return _registered(given, activities.all())

        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            "awaithumans.HumanTasksPlugin",
            data_converter=_converter,
            activities=registered,
            workflow_runner=_runner,
            workflow_failure_exception_types=[AwaitHumansError],
        )


def _converter(given: DataConverter | None) -> DataConverter:
    converter = given or DataConverter.default
    if converter.payload_converter_class is not DefaultPayloadConverter:
        return converter
    return replace(converter, payload_converter_class=PydanticPayloadConverter)


def _registered(
    given: Sequence[Callable[..., Any]] | None, ours: Sequence[Callable[..., Any]]
) -> Sequence[Callable[..., Any]]:
    """Ours added once: a plugin given to a client and to its worker configures the worker twice."""
    names = {_name(function) for function in given or ()}
    return [*(given or ()), *(function for function in ours if _name(function) not in names)]


def _name(function: Callable[..., Any]) -> str | None:
    reader = activity._Definition  # pyright: ignore[reportPrivateUsage]  # the SDK offers no public reader
    definition = reader.from_callable(function)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
    return definition.name if definition else None


def _runner(given: WorkflowRunner | None) -> WorkflowRunner:
    runner = given or SandboxedWorkflowRunner()
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    return replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*PASSED_THROUGH))
