"""Plugins for Temporal users: one object to add, or two if workflows and activities have workers of their own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypedDict, cast

from temporalio import activity
from temporalio.client import Client, ClientConfig
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import Interceptor, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from awaithumans_adapters.temporal.activities.human_tasks import HumanTaskActivities, question_size
from awaithumans_adapters.temporal.activities.options import ActivityOptions, chosen
from awaithumans_adapters.temporal.dev_instance import check_address
from awaithumans_adapters.temporal.failures import SettingErrors
from awaithumans_adapters.temporal.workflow.interceptor import HumanTasksInterceptor
from awaithumans_core.errors import AwaitHumansError, SettingsError
from awaithumans_core.settings import Settings

PASSED_THROUGH = ("awaithumans_core", "awaithumans_adapters")

_PROBE = {"text": "é", "number": 1, "list": [True, None, 2.5]}
"""A value of the kind that questions and answers consist of: JSON."""


class WorkerSoFar(TypedDict, total=False):
    """The parts of a `WorkerConfig` that the plugins read, fully typed."""

    client: Client
    activities: Sequence[Callable[..., Any]]
    interceptors: Sequence[Interceptor]


class _Plugin(SimplePlugin):
    """Base of the plugins: registers its parts once, and refuses parts of another configuration."""

    def __init__(
        self, *, activities: HumanTaskActivities | None = None, interceptor: HumanTasksInterceptor | None = None
    ) -> None:
        self._activities = activities
        self._interceptor = interceptor
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            f"awaithumans.{type(self).__name__}",
            data_converter=_converter,
            activities=self._with_own,
            interceptors=None if self._interceptor is None else [self._interceptor],
            workflow_runner=None if self._interceptor is None else _runner,
            workflow_failure_exception_types=None if self._interceptor is None else [AwaitHumansError],
        )

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """Configure a client, as the SDK requires, and check that its converter carries JSON.

        Raises:
            SettingsError: the converter does not carry JSON.
        """
        configured = super().configure_client(config)
        _check(configured["data_converter"])
        return configured

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Configure a worker, as the SDK requires. A plugin of both a client and its worker configures the worker once.

        Raises:
            SettingsError: the activities or the interceptor are already registered with another configuration, or the
                client is connected to another Temporal server than the running `awaithumans-relay dev` has.
        """
        registered = cast("WorkerSoFar", config)
        client = registered.get("client")
        if client is not None and self._activities is not None and self._activities.settings is None:
            check_address(client)
        activities = self._registered_activities(registered)
        interceptors = [
            each for each in registered.get("interceptors") or () if isinstance(each, HumanTasksInterceptor)
        ]
        if not activities and not (interceptors and self._interceptor):
            return super().configure_worker(config)
        for function in activities:
            owner = getattr(function, "__self__", None)
            ours = self._activities
            if ours is None or not isinstance(owner, HumanTaskActivities) or not ours.same_as(owner):
                raise SettingsError(
                    f"the activity {_name(function)!r} is registered already, and not with this plugin's settings: "
                    f"give {type(self).__name__} to the client or to the worker, once, and leave its activities out of "
                    "activities="
                )
        if self._interceptor is None:
            return config
        if not interceptors:
            raise SettingsError(f"{type(self).__name__} registers its activities itself: leave them out of activities=")
        if len(activities) != len(self._names) or not all(map(self._interceptor.same_as, interceptors)):
            raise SettingsError(
                f"another plugin of this package configures the workflows of this worker already: give one of them, "
                f"with one activities=..., and not {type(self).__name__} as well"
            )
        return config

    @property
    def _names(self) -> set[str | None]:
        """Names of the activities that depend on this plugin's settings."""
        every = () if self._activities is None else self._activities.all()
        return {_name(function) for function in every if function is not question_size}

    def _with_own(self, registered: Sequence[Callable[..., Any]] | None) -> Sequence[Callable[..., Any]]:
        """Return a worker's activities with those of this plugin added.

        A worker that runs workflows only still needs the activity that measures questions.
        """
        before = list(registered or ())
        own = [question_size] if self._activities is None else self._activities.all()
        return [*before, *(function for function in own if function not in before)]

    def _registered_activities(self, registered: WorkerSoFar) -> list[Callable[..., Any]]:
        """Return the worker's activities that have the names of this plugin's."""
        return [function for function in registered.get("activities") or () if _name(function) in self._names]


class HumanTasksPlugin(_Plugin):
    """Registers everything `await_human` needs: one line on the client, whose workers inherit it, or on a worker.

        client = await Client.connect("localhost:7233", plugins=[HumanTasksPlugin()])

    It registers the activities and the interceptor that carries open waits from run to run. It lets workflows use
    pydantic models (a payload converter you have set stays). It loads this package once instead of in every sandbox,
    and makes the errors of this package fail a workflow instead of suspending it.

    A client that only starts workflows, in another program, needs the plugin as well, for pydantic models with a
    `Decimal` or a date: without it, Temporal raises `TypeError: Object of type Decimal is not JSON serializable`. It
    needs no settings there. `data_converter=temporalio.contrib.pydantic.pydantic_data_converter` does the same.
    Temporal takes a converter only from a client, so if the plugin is given to a worker, give its client that one.

    Args:
        settings: Default: read from the worker's environment when the first question is asked.
        setting_errors: Effect of a wrong setting (an address, a token, a secret, a relay without Temporal) on a
            workflow that asks. `"retry"`: it waits until the setting is corrected, and the Temporal UI names it. After
            `ask_within` (default: `timeout_seconds`) it fails with the typed error. `"fail"`: it fails at once.
        activities: How workflows schedule the activities: task queue, timeout, retries, priority. Default: on the
            workflow's own task queue. `await_human(activities=...)` has options for one question.
        list_assignees: Set the search attribute `AwaitHumansAssignees` to the people a workflow waits for, so that
            waiting workflows can be listed. It is stored in clear text. The namespace must have it: create it first (a
            KeywordList), or workflows that ask make no progress until it exists. A run keeps the choice that was
            configured at its first question.

    Raises:
        SettingsError: when the client or the worker is created: its converter does not carry JSON, or the activities
            are already registered with other settings.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        setting_errors: SettingErrors = "retry",
        activities: ActivityOptions | None = None,
        list_assignees: bool = False,
    ) -> None:
        super().__init__(
            activities=HumanTaskActivities(settings, setting_errors=setting_errors),
            interceptor=HumanTasksInterceptor(activities, list_assignees=list_assignees),
        )


class HumanTasksWorkflowPlugin(_Plugin):
    """Plugin for workers that run workflows only.

    They need no settings and no access to the awaithumans server or the relay.

    Their workflows schedule the activities on the task queue of workers with `HumanTasksActivityPlugin`.

    Args:
        activities: How workflows schedule the activities. `task_queue` is required.
        list_assignees: As for `HumanTasksPlugin`.

    Raises:
        SettingsError: `activities` has no task queue; or as for `HumanTasksPlugin`.

    Example:
        routed = ActivityOptions(task_queue="human-tasks")
        Worker(client, task_queue="refunds", workflows=[...], plugins=[HumanTasksWorkflowPlugin(activities=routed)])
        Worker(client, task_queue="human-tasks", plugins=[HumanTasksActivityPlugin()])  # another process
    """

    def __init__(self, *, activities: ActivityOptions, list_assignees: bool = False) -> None:
        if chosen(activities).task_queue is None:
            raise SettingsError(
                "HumanTasksWorkflowPlugin has no task queue for the activities, which its worker does not run: give "
                'activities=ActivityOptions(task_queue="..."), the queue of a worker with HumanTasksActivityPlugin'
            )
        super().__init__(interceptor=HumanTasksInterceptor(activities, list_assignees=list_assignees))


class HumanTasksActivityPlugin(_Plugin):
    """Plugin for workers that run the activities only; see `HumanTasksWorkflowPlugin`.

    Args:
        settings: As for `HumanTasksPlugin`.
        setting_errors: As for `HumanTasksPlugin`.

    Raises:
        SettingsError: as for `HumanTasksPlugin`.
    """

    def __init__(self, settings: Settings | None = None, *, setting_errors: SettingErrors = "retry") -> None:
        super().__init__(activities=HumanTaskActivities(settings, setting_errors=setting_errors))


def _converter(given: DataConverter | None) -> DataConverter:
    converter = given or DataConverter.default
    if converter.payload_converter_class is not DefaultPayloadConverter:
        return converter
    return replace(converter, payload_converter_class=PydanticPayloadConverter)


def _check(converter: DataConverter) -> None:
    """Raise unless the converter reads a JSON value back unchanged.

    Raises:
        SettingsError: it does not.
    """
    try:
        payloads = converter.payload_converter.to_payloads([_PROBE])
        (back,) = converter.payload_converter.from_payloads(payloads, [dict[str, Any]])
    except Exception as error:
        back = error
    if back != _PROBE:
        raise SettingsError(
            f"the client's payload converter ({converter.payload_converter_class.__name__}) does not carry JSON, which "
            f"questions and answers are: {back!r}. Let yours fall back to "
            "temporalio.contrib.pydantic.PydanticPayloadConverter"
        )


def _name(function: Callable[..., Any]) -> str | None:
    reader = activity._Definition  # pyright: ignore[reportPrivateUsage]  # the SDK offers no public reader
    definition = reader.from_callable(function)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
    return definition.name if definition else None


def _runner(given: WorkflowRunner | None) -> WorkflowRunner:
    runner = given or SandboxedWorkflowRunner()
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    return replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*PASSED_THROUGH))
